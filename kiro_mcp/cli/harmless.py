"""Text of others, so that it cannot steer a terminal or turn its words around. Pure.

A model, a service, a captured call and a caller's header can all hold escape sequences, which move
the cursor, write to the clipboard or change what is shown, and Unicode's marks of direction, which
show words in another order. Everything that a command prints goes through here.
"""

import json
import logging
from typing import Any, Final

from kiro_mcp.redaction import redact

MAX_LOGGED_CHARACTERS: Final = 2000
"""How much of one log message is written; a stranger's header alone can have 60 KB."""
MAX_TRACEBACK_CHARACTERS: Final = 20_000

_CONTROLS: Final = (*(code for code in range(0x20) if chr(code) not in "\t\n"), *range(0x7F, 0xA0))
_DIRECTIONS: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters."""

_SHOWN: Final = dict.fromkeys((*_CONTROLS, *_DIRECTIONS), "\N{REPLACEMENT CHARACTER}") | {
    code: 0x2400 + code for code in _CONTROLS if code < 0x20
}
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in (*_CONTROLS, *_DIRECTIONS)}


def harmless(text: str) -> str:
    """Make control characters and marks of direction visible: ESC is ␛."""
    return text.translate(_SHOWN)


def harmless_json(value: Any) -> str:
    """Write JSON for people and programs: what could steer a terminal is escaped, not lost."""
    return json.dumps(value, indent=2, ensure_ascii=False).translate(_ESCAPED)


class LogFormatter(logging.Formatter):
    """Writes a log message without secrets, on one harmless line; a traceback goes below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's own name
        """Write its line."""
        message = redact(record.message)  # Before it is cut, while a secret in it is whole.
        if (rest := len(message) - MAX_LOGGED_CHARACTERS) > 0:
            message = f"{message[:MAX_LOGGED_CHARACTERS]} … ({rest} more characters)"
        record.message = harmless(message).replace("\n", "␊")
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # logging's own name
        """Write its traceback."""
        return harmless(super().formatException(ei)[-MAX_TRACEBACK_CHARACTERS:])
