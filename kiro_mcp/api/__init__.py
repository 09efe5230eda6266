"""OpenAI's and Anthropic's APIs, for programs that want a model and not a tool.

    HTTP request ── read ──> Question ── ask ──> events ── write ──> HTTP response
        app.py               exchange.py                    app.py

`chat_completions.py`, `responses.py` and `messages.py` each read and write one API; `reading.py`
and `writing.py` are what they share. Each request stands by itself: nothing is stored. The engine
is that of the MCP server.
"""
