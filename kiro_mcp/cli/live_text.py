"""An answer's text onto standard output while it comes, so that what is shown is the answer.

What comes early is a preview; the result is what counts. `LiveText` says what is still to be
printed, `Output` prints it, in a thread: a reader who is slow, or a terminal that is held with
Ctrl-S, holds up neither the answer nor Ctrl-C.
"""

import math
from contextlib import suppress
from typing import TextIO

import anyio
import anyio.to_thread

from kiro_mcp.cli.harmless import harmless


class LiveText:
    """How much of one answer has been printed. Pure."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._count = 0
        self._is_behind = False

    def take(self, offset: int, text: str) -> str:
        """Return what to print now of a piece that begins at a character of the text.

        After a gap, or where the text begins anew, nothing is printed until it is whole.
        """
        self._is_behind = self._is_behind or offset != self._count
        if self._is_behind:
            return ""
        self._shown.append(text)
        self._count += len(text)
        return text

    def finish(self, text: str) -> str:
        """Return what is missing of the whole text, and the newline that ends it.

        Where another text was shown before, the whole follows on a line of its own.
        """
        shown = "".join(self._shown)
        rest = text[len(shown) :] if text.startswith(shown) else f"\n{text}"
        return rest if text.endswith("\n") or not text else f"{rest}\n"


class Output:
    """Standard output, for text that comes in pieces."""

    def __init__(self, stream: TextIO) -> None:
        self.fault: OSError | None = None
        """Why it cannot be printed to, once it cannot."""
        self._stream = stream
        self._is_terminal = stream.isatty()  # Also one that can do little (TERM=dumb).
        self._is_mid_line = False
        # Its limit is that of an answer.
        self._put, self._pieces = anyio.create_memory_object_stream[str](math.inf)

    def put(self, text: str) -> None:
        """Print this, in a moment, unless printing has ended."""
        if text:
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                self._put.send_nowait(text)

    def close(self) -> None:
        """Say that nothing more comes; `run` ends once all is printed."""
        self._put.close()

    async def run(self, call: anyio.CancelScope) -> None:
        """Print what is put; where nobody reads any more, cancel the call that it comes of."""
        with self._put, self._pieces:
            try:
                async for text in self._pieces:
                    await anyio.to_thread.run_sync(self._print, text, abandon_on_cancel=True)
            except OSError as error:
                self.fault = error
                call.cancel()

    def end_line(self) -> None:
        """Have what comes next on the terminal begin a line of its own, as a prompt should."""
        if self._is_terminal and self._is_mid_line and self.fault is None:
            self._print("\n")

    def _print(self, text: str) -> None:
        self._is_mid_line = not text.endswith("\n")
        self._stream.write(harmless(text) if self._is_terminal else text)
        self._stream.flush()
