"""`kiro-mcp doctor`: what could keep this server from working, looked at without touching it.

`probes` looks and asks, `checks` judges what was seen, `report` prints that, `run` puts them
together. Nothing is written, renewed or signed in, and nothing secret is shown.
"""
