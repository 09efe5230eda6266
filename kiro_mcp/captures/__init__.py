"""Captures: calls written to files for a bug report, and read again later.

A capture is the folder of one call. What happens to the call is noted in memory; when the call
ends, one thread redacts the notes and writes the files::

    server, client ─▶ recording ─▶ redacting ─▶ a folder ─▶ folder ─┬─▶ replaying: `kiro-mcp replay`
                       (memory)     (a thread)                      └─▶ the emulator's scripts
"""

from typing import Literal

Outcome = Literal["running", "completed", "truncated", "failed", "cancelled"]
"""How a captured call ended. `running` is also what a killed process leaves behind."""
