"""The exit codes of `kiro-mcp`, and an end to output that cannot be written any more."""

import os
import sys
from contextlib import suppress
from typing import Final

from kiro_mcp.cli.harmless import harmless

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
