"""Output on a terminal: colours, a spinner and dim lines; plain text on a pipe or a file.

Plain text stays plain, whatever the environment says about colours; rich respects `NO_COLOR`.
Results go to standard output, all messages for people to standard error.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import StringIO
from typing import Final, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from kiro_mcp.cli.output import CODES, REFUSED, LogFormatter, OutputError, harmless, note
from kiro_mcp.errors import KiroError, name_login_command

PIPE_WIDTH: Final = 1000
"""A pipe has no width: text must be neither cut nor wrapped there."""

_REFRESHES_PER_SECOND: Final = 12.5


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can do more than print lines."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@cache
def console_on(stream: TextIO) -> Console:
    """Return the only console of a stream; it writes plain text unless that is a terminal.

    The only one of standard error prints above a spinner, not into it.
    """
    has_terminal = is_terminal(stream)
    return Console(
        file=stream,
        force_terminal=has_terminal,
        width=None if has_terminal else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def say(text: str) -> None:
    """Print to standard output at once, without characters that could control a terminal.

    They are replaced for a pipe, too: its reader may print to a terminal. JSON output is exact.

    Raises:
        OutputError: Standard output cannot be written.
    """
    try:
        print(harmless(text), flush=True)
    except OSError as error:
        raise OutputError(error) from error


def show(renderable: RenderableType) -> None:
    """Print to standard output: with colours on a terminal, otherwise as plain, aligned lines.

    Raises:
        OutputError: Standard output cannot be written.
    """
    if is_terminal(sys.stdout):
        console_on(sys.stdout).print(Harmless(renderable))
        return
    plain = StringIO()
    console_on(plain).print(renderable)
    say("\n".join(line.rstrip() for line in plain.getvalue().splitlines()))


class Harmless:
    """Anything that rich can show, without escape sequences other than rich's own."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            is_own = segment.control is not None
            yield segment if is_own else Segment(harmless(segment.text), segment.style)


def tell(line: str, *, style: str = "") -> None:
    """Print one line to standard error. If that fails, the line is dropped."""
    text = harmless(" ".join(line.splitlines()))
    if not is_terminal(sys.stderr):
        note(text)  # Rich would end the process if the reader has closed the pipe.
        return
    with suppress(OSError):
        # Wraps between words.
        console_on(sys.stderr).print(Text(text, style=style), soft_wrap=False)


def tell_error(error: KiroError) -> int:
    """Print an error to standard error and return its exit code."""
    tell(name_login_command(f"{error.code}: {error}"))
    return CODES.get(error.code, REFUSED)


class StderrHandler(logging.Handler):
    """Prints log messages as the commands print their own: `warning: …`."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LogFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Print each line of a message."""
        for line in self.format(record).splitlines():
            tell(f"{record.levelname.lower()}: {line}")


class Wait:
    """What the spinner says and for how long it has been shown. Rich renders it for every frame."""

    def __init__(self, words: str) -> None:
        self.words = words
        self._began_at = time.monotonic()
        self.end: Callable[[], None] = lambda: None
        """Removes the spinner from the screen, if it is shown."""

    def __rich__(self) -> Text:
        return Text(f"{self.words} … {time.monotonic() - self._began_at:.0f} s")


@contextmanager
def waiting(words: str) -> Generator[Wait]:
    """Show a spinner with these words on standard error, if that is a terminal."""
    wait = Wait(words)
    if not is_terminal(sys.stderr):
        yield wait
        return
    # With redirection, rich would send the answer itself to standard error.
    with Live(
        Spinner("dots", text=wait),  # pyright: ignore[reportArgumentType]  # any renderable will do
        console=console_on(sys.stderr),
        refresh_per_second=_REFRESHES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as live:
        wait.end = live.stop
        yield wait
