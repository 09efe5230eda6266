"""What a change of a configuration looks like, without its secrets. Pure."""

import difflib
import re
from collections.abc import Iterator
from typing import Final

from kiro_mcp.redaction import HIDDEN, redact

MAX_LINE: Final = 200
"""How much of a line is shown; some clients write their file as one line."""

_CONTEXT_LINES: Final = 3

_URL_LOGIN: Final = re.compile(r"(?<=://)[^/@\s\"']+(?=@)")
"""A user's name and password in an address, such as a proxy's."""

_HEADERS: Final = re.compile(r"""((?<!\w)["']?\w*HEADERS?["']?\s*[:=]\s*)\S.*""", re.IGNORECASE)
"""The headers of a request as one text, in which no name says which of them is secret: the rest of
the line is hidden."""

_SECRET: Final = re.compile(
    r"""((?<![\w.-])["']?[\w.-]*(?:auth\w*|cookie|credential|key|pass\w*|pat|secret|token)s?["']?\s*[:=]\s*)
        (["'])(?:\\.|(?!\2).)*\2""",
    re.IGNORECASE | re.VERBOSE,
)
"""A text under a name that sounds like a secret's: the file holds other servers' variables, too."""


def shown_change(before: str, after: str, name: str) -> Iterator[str]:
    """Yield the lines of a unified diff, with every secret in them hidden."""
    lines = difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        fromfile=name,
        tofile=name,
        n=_CONTEXT_LINES,
        lineterm="",
    )
    for line in lines:
        # Hidden line by line and after comparing: a change of a secret alone must still show.
        hidden = _HEADERS.sub(rf"\1{HIDDEN}", _URL_LOGIN.sub(HIDDEN, line))
        hidden = redact(_SECRET.sub(rf"\1\2{HIDDEN}\2", hidden))
        rest = len(hidden) - MAX_LINE
        yield hidden if rest <= 0 else f"{hidden[:MAX_LINE]} … ({rest} more characters)"
