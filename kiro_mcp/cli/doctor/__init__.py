"""`kiro-mcp doctor`: what could keep this server from working, looked at without touching it.

`probes` looks and asks, `checks` judges what was seen, `run` puts them together and prints.
Nothing is written, renewed or signed in, and no secret is shown.
"""
