"""Serves MCP: three tools, prompts and resources, over standard input and output or HTTP.

::

    faststart.py    answers a client's first messages before the SDK is loaded
    stdio.py        MCP over standard input and output
    http.py         MCP over Streamable HTTP and SSE
      http_gate.py    Host, Origin, token and memory of HTTP requests
    app.py          build_server(): the server, for every transport
      tools.py        the three tools and the schemas of their results
      arguments.py    the schemas of their arguments, and the reading of a call's arguments
      call.py         the context of a call: its caller, and what its client can show
      ask.py          the tool ask_claude
        attachments.py  images and text files
        jobs.py         answers in progress, and the calls that wait for them
        captures.py     recordings of calls
      list_models.py  the tool list_models
      login.py        the tool login, and the sign-in during a call
      results.py      the tools' results
      prompts.py      slash commands
      resources.py    conversations and answers as resources
    engine.py       Engine: the settings, client, tokens, store and jobs that the tools use
      owners.py       the owners of answers, and callers with their own API keys
      store.py        conversations and answers on disk
"""
