"""Captures: records of calls in files, for bug reports and for replays.

A capture is the folder of one call. The events of the call are recorded in memory; when the call
ends, one thread redacts them and writes the files::

    server, client ─▶ recording ─▶ redacting ─▶ a folder ─▶ folder ─┬─▶ replaying: `kiro-mcp replay`
                       (memory)     (a thread)                      └─▶ the emulator's scripts
"""
