"""How much of one answer is kept. Past any of these it ends there, with what came before.

All are far above what a model says in one turn and far below what a process can hold.
"""

from typing import Final

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""Bytes of the stream. Framing makes it some five times the text; it bounds all the rest."""
MAX_TEXT_CHARACTERS: Final = 32 * 1024 * 1024
"""Text and thinking together; models are cut off at well under a million."""
MAX_INPUT_CHARACTERS: Final = 32 * 1024 * 1024
"""Arguments of all tool uses together; the service breaks off at some 40 thousand."""
MAX_TOOL_USES: Final = 4096
"""Models ask for a few dozen at most."""
MAX_PARTS: Final = 16_384
"""Runs of text, blocks of thinking and tool uses."""
MAX_LISTED: Final = 1000
"""References, and links: what the service lists beside the text. Further ones are left out."""
MAX_WARNINGS: Final = 50
"""Sentences about what was odd. Further ones are counted; nobody reads so many."""
MAX_IGNORED_TYPES: Final = 100
"""Types of event that are counted by name; the model knows under twenty."""
MAX_TYPE_CHARACTERS: Final = 80
"""Of the name of an event; a header could hold 64 KiB."""


class AnswerLimitError(ValueError):
    """An answer has more of something than is kept; its text says how much of what."""
