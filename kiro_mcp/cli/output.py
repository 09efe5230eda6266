"""Output of all commands, made safe for terminals, and their exit codes.

Text from a model, a service, a captured call or a caller's header can contain escape sequences,
which move the cursor, write to the clipboard or change what is shown, and Unicode's direction
marks, which show words in another order. Everything that a command prints passes `harmless` first.
"""

import json
import logging
import os
import sys
from contextlib import suppress
from threading import Lock
from typing import Any, Final, NoReturn

from kiro_mcp.redaction import redact

MAX_LOGGED_CHARACTERS: Final = 2000
"""The limit of one log message; a header of a stranger alone can have 60 KB."""
MAX_TRACEBACK_CHARACTERS: Final = 20_000

_CONTROLS: Final = (*(code for code in range(0x20) if chr(code) not in "\t\n"), *range(0x7F, 0xA0))
_DIRECTIONS: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters."""

_SHOWN: Final = dict.fromkeys((*_CONTROLS, *_DIRECTIONS), "\N{REPLACEMENT CHARACTER}") | {
    code: 0x2400 + code for code in _CONTROLS if code < 0x20
}
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in (*_CONTROLS, *_DIRECTIONS)}


def harmless(text: str) -> str:
    """Replace control characters and direction marks by visible ones: ESC becomes ␛."""
    return text.translate(_SHOWN)


def harmless_json(value: Any) -> str:
    """Write JSON; characters that could control a terminal are escaped, so nothing is lost."""
    return json.dumps(value, indent=2, ensure_ascii=False).translate(_ESCAPED)


class LogFormatter(logging.Formatter):
    """Writes a log message without secrets, on one safe line; a traceback goes below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's own name
        """Write the line of the message."""
        message = redact(record.message)  # Before the cut, which could leave half of a secret.
        if (rest := len(message) - MAX_LOGGED_CHARACTERS) > 0:
            message = f"{message[:MAX_LOGGED_CHARACTERS]} … ({rest} more characters)"
        record.message = harmless(message).replace("\n", "␊")
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # logging's own name
        """Write the traceback."""
        return harmless(super().formatException(ei)[-MAX_TRACEBACK_CHARACTERS:])


# --- exit codes ---------------------------------------------------------------------------


FAILED_OUTPUT: Final = 1
DIFFERENT: Final = 1
"""`replay`: the result differs from the recorded one."""
USAGE: Final = 2
SIGN_IN: Final = 3
NETWORK: Final = 4
REFUSED: Final = 5
INTERRUPTED: Final = 130
CLOSED_OUTPUT: Final = 141
"""The reader of the output stopped early: a shell's exit code for a program ended by SIGPIPE."""

CODES: Final = {
    "invalid_request": USAGE,
    "not_found": USAGE,
    "auth_required": SIGN_IN,
    "auth_expired": SIGN_IN,
    "network_error": NETWORK,
    "timeout": NETWORK,
}
"""The exit code for each error code; all others give `REFUSED`."""


class OutputError(Exception):
    """Standard output cannot be written; `cause` is the system's error."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def note(line: str) -> None:
    """Print a line to standard error. If that fails, the line is dropped."""
    with suppress(OSError):
        print(harmless(line), file=sys.stderr, flush=True)


_ends: Final = Lock()


def end_process(code: int) -> NoReturn:
    """End the process without an interpreter shutdown, which takes longer than most commands.

    Two threads may want that at once: the command that ends, and the timer that limits how long
    that takes. Only the first one exits, because two exits at once crash under coverage.
    """
    _ends.acquire()
    os._exit(code)


def output_failed(error: OSError) -> int:
    """Print why standard output is incomplete, and return the exit code for that.

    Prints nothing if the reader closed the pipe, as `head` does.
    """
    # Buffered text must not fail again when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return CLOSED_OUTPUT
    note(f"error: The output cannot be written ({error.strerror}).")
    return FAILED_OUTPUT
