"""What every command prints through, and its exit codes.

A model, a service, a captured call and a caller's header can all hold escape sequences, which move
the cursor, write to the clipboard or change what is shown, and Unicode's direction marks, which
show words in another order. Everything that a command prints goes through `harmless` first.
"""

import json
import logging
import os
import sys
from contextlib import suppress
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


# --- exit codes ---------------------------------------------------------------------------


FAILED_OUTPUT: Final = 1
DIFFERENT: Final = 1
"""`replay`: an answer reads differently than it was recorded."""
USAGE: Final = 2
SIGN_IN: Final = 3
NETWORK: Final = 4
REFUSED: Final = 5
INTERRUPTED: Final = 130
CLOSED_OUTPUT: Final = 141
"""Nobody read the output to its end: what the shell says of a program that SIGPIPE ended."""
TERMINATED: Final = 143

CODES: Final = {
    "invalid_request": USAGE,
    "not_found": USAGE,
    "auth_required": SIGN_IN,
    "auth_expired": SIGN_IN,
    "network_error": NETWORK,
    "timeout": NETWORK,
}
"""By the code of an error; every other one is `REFUSED`."""


class OutputError(Exception):
    """Standard output cannot be written; its cause is an `OSError`."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def note(line: str) -> None:
    """Print a line to standard error. Where nobody takes it, nothing else suffers for it."""
    with suppress(OSError):
        print(harmless(line), file=sys.stderr, flush=True)


def flush_notes() -> None:
    """Send what is left of standard error, to whom takes it."""
    with suppress(OSError):
        sys.stderr.flush()


def output_failed(error: OSError) -> int:
    """Say why standard output is not whole, and return the exit code for that.

    Says nothing where its reader has seen enough, as `head` has.
    """
    # What is still buffered must not fail once more when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return CLOSED_OUTPUT
    note(f"error: The output cannot be written ({error.strerror}).")
    return FAILED_OUTPUT
