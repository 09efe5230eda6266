"""Calls written down for a bug report: what was asked, sent, received and made of it.

A capture is a folder of one call. It is written while the call goes on, read again by
`kiro-mcp replay`, and played by the emulator::

    server ─▶ recording ─▶ call_files ─▶ a folder ─▶ folder ─┬─▶ replaying
                            masking, rendering               └─▶ the emulator's scripts
"""

from typing import Literal

Outcome = Literal["running", "completed", "truncated", "failed", "cancelled"]
"""How a captured call ended; `running` is also what a killed process leaves."""
