"""OpenAI's and Anthropic's APIs, for programs that want a model and not a tool.

    HTTP request ── read ──> Question ── exchange.ask ──> events ── write ──> HTTP response
         app.py      one of chat_completions.py, responses.py, messages.py        app.py

Each request stands by itself: nothing is stored. The engine is that of the MCP server.
"""
