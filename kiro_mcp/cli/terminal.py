"""What a person at a terminal gets beyond plain text: colour, a spinner, a line that is dim.

A pipe or a file gets plain text alone, whatever the environment says about colours. `NO_COLOR`
is rich's to respect. Standard error is for people, standard output for what was asked for.
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

from kiro_mcp.cli.output import CODES, REFUSED, OutputError, harmless, note
from kiro_mcp.errors import KiroError

PIPE_WIDTH: Final = 1000
"""A pipe has no width to fit into: nothing may be cut off or wrapped there."""

_REFRESHES_PER_SECOND: Final = 12.5


def is_terminal(stream: TextIO) -> bool:
    """Whether a person sees the stream on a terminal that can do more than print."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def console_on(stream: TextIO) -> Console:
    """Make a console that writes plain text unless a terminal shows it."""
    is_shown = is_terminal(stream)
    return Console(
        file=stream,
        force_terminal=is_shown,
        width=None if is_shown else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def say(text: str) -> None:
    """Print to standard output, now, nothing that could steer a terminal.

    Also where a pipe is between: its end may be a terminal. What must be exact is JSON.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        print(harmless(text), flush=True)
    except OSError as error:
        raise OutputError(error) from error


def show(renderable: RenderableType) -> None:
    """Print to standard output: with colours on a terminal, and else plain, aligned lines.

    Raises:
        OutputError: It cannot be written.
    """
    if is_terminal(sys.stdout):
        console_on(sys.stdout).print(Harmless(renderable))
        return
    plain = StringIO()
    console_on(plain).print(renderable)
    say("\n".join(line.rstrip() for line in plain.getvalue().splitlines()))


class Harmless:
    """Anything that rich can show, with only rich's own escape sequences in it."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            is_own = segment.control is not None
            yield segment if is_own else Segment(harmless(segment.text), segment.style)


def errors() -> Console:
    """The one console of standard error: what it prints goes above a spinner, not into it."""
    return _errors_on(sys.stderr)


@cache
def _errors_on(stream: TextIO) -> Console:
    return console_on(stream)


def tell(line: str, *, style: str = "") -> None:
    """Print one line to standard error, if anybody takes it."""
    words = harmless(" ".join(line.splitlines()))
    if not is_terminal(sys.stderr):
        note(words)  # Rich would end the process where nobody reads any more.
        return
    with suppress(OSError):
        errors().print(Text(words, style=style))


def tell_error(error: KiroError) -> int:
    """Tell what went wrong on standard error, and return the exit code of its kind."""
    tell(f"{error.code}: {error}")
    return CODES.get(error.code, REFUSED)


class TellingHandler(logging.Handler):
    """Has what is logged told like all else, as `warning: …`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell each line of it."""
        for line in self.format(record).splitlines():
            tell(f"{record.levelname.lower()}: {line}")


class Wait:
    """What is being waited for, and since when. Rich renders it anew for every frame."""

    def __init__(self, words: str, now: Callable[[], float]) -> None:
        self.words = words
        self._now = now
        self._began_at = now()
        self._end: Callable[[], None] = lambda: None

    def __rich__(self) -> Text:
        return Text(f"{self.words} … {self._now() - self._began_at:.0f} s")

    def end_with(self, end: Callable[[], None]) -> None:
        """Say what takes the spinner off the screen."""
        self._end = end

    def end(self) -> None:
        """Take the spinner off the screen, if it is there."""
        self._end()


@contextmanager
def waiting(words: str, *, now: Callable[[], float] = time.monotonic) -> Generator[Wait]:
    """Show a spinner with these words on standard error, on a terminal; nothing elsewhere."""
    wait = Wait(words, now)
    if not is_terminal(sys.stderr):
        yield wait
        return
    # Redirecting would send the answer itself to standard error.
    with Live(
        Spinner("dots", text=wait),  # pyright: ignore[reportArgumentType]  # any renderable will do
        console=errors(),
        refresh_per_second=_REFRESHES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as live:
        wait.end_with(live.stop)
        yield wait
