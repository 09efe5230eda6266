"""The body of a successful answer that is no event stream, into the error that it is.

A proxy's page, an error document under status 200, or a stream that something in between has
re-encoded. A decoder of frames would read its first letters as a length of two gigabytes and
wait for them. A frame begins with a zero or a one, because no frame is longer than 32 MiB, so
the first few bytes tell the two apart.
"""

import re
from typing import Final

from kiro_mcp.chat import Fault
from kiro_mcp.wire.events import read_fault
from kiro_mcp.wire.members import UnreadableError, parse_object

MAX_BODY_BYTES: Final = 64 * 1024
"""How much of such a body is kept. Error documents have a few hundred bytes."""
MAX_TITLE_CHARACTERS: Final = 200

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_DOCUMENT: Final = (b"{", b"[", b"<")
_EVENT_LINE: Final = (b"data:", b"event:", b"id:", b"retry:")
_JUDGED_BYTES: Final = 12
"""As long as a frame's prelude, from which a decoder of frames tells for itself."""
_SILENT: Final = Fault(message="The answer is JSON, not an event stream.")
_TITLE: Final = re.compile(r"<(title|Message)\b[^>]*>([^<]*)<", re.IGNORECASE)


def is_foreign(beginning: bytes) -> bool | None:
    """Whether a body that begins like this is no event stream; None if more must be seen."""
    text = beginning[:_JUDGED_BYTES].removeprefix(_BYTE_ORDER_MARK).lstrip()
    if text.startswith(_DOCUMENT + _EVENT_LINE):
        return True
    is_short = len(beginning) < _JUDGED_BYTES
    is_possible = any(line.startswith(text) for line in _EVENT_LINE)
    return None if is_short and (is_possible or _BYTE_ORDER_MARK.startswith(text)) else False


class ForeignBody:
    """Gathers such a body until it says what it has to say."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._open_braces = 0

    def feed(self, data: bytes) -> Fault | None:
        """Take the next bytes; return the error as soon as it can be told."""
        data = data[: MAX_BODY_BYTES - len(self._body)]
        self._body += data
        self._open_braces += data.count(b"{") - data.count(b"}")
        if len(self._body) == MAX_BODY_BYTES or not self._text().startswith(b"{"):
            return self.close()
        # Braces in strings can hide the end of an object from this, but not from `close`.
        return None if self._open_braces else self._read_object()

    def close(self) -> Fault:
        """Return the error as far as it can be told from what has come."""
        text = self._text()
        if text.startswith(b"<"):
            title = _TITLE.search(text.decode(errors="replace"))
            words = f": {title[2].strip():.{MAX_TITLE_CHARACTERS}}" if title else "."
            return Fault(message=f"The answer is a page, not an event stream{words}")
        if not text.startswith(_DOCUMENT):
            return Fault(message="The answer is a text stream, not an event stream of AWS.")
        return self._read_object() or _SILENT

    def _read_object(self) -> Fault | None:
        try:
            fault = read_fault(parse_object(self._text()))
        except (UnreadableError, RecursionError):
            return None
        return fault if fault != Fault() else _SILENT

    def _text(self) -> bytes:
        return bytes(self._body).removeprefix(_BYTE_ORDER_MARK).strip()
