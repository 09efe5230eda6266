"""How much of the package one call enters: its files and its named functions.

Run it with `python -m tests.benchmarks.walk`. A client asks "hello" of a server in this process,
which asks the emulator. What the emulator enters is not counted, nor is what a module does while
it is imported. The first call also makes the engine; the second is what each later call enters.
`--list` names the functions of the second call, file by file. Exits with 1 when a bar is missed.
"""

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from inspect import CO_NEWLOCALS
from pathlib import Path
from types import FrameType

import anyio
from anyio import fail_after

import kiro_mcp
from kiro_mcp.emulator import Send, frames, running
from tests.support.mcp import connected

MAX_FILES = 36
MAX_FUNCTIONS = 190

PACKAGE = Path(kiro_mcp.__file__).parent
NOT_COUNTED = (PACKAGE / "emulator", PACKAGE / "web_server.py")
"""The emulator, and what serves it over HTTP."""


class Walk:
    """The named functions that are entered, by file, in all threads that begin while it watches."""

    def __init__(self) -> None:
        self.entered: dict[str, set[str]] = {}

    def note(self, frame: FrameType, event: str, _arg: object) -> None:
        """Take an event of the interpreter."""
        code = frame.f_code
        path = Path(code.co_filename)
        if (
            event != "call"
            or not path.is_relative_to(PACKAGE)
            or any(map(path.is_relative_to, NOT_COUNTED))
        ):
            return
        if code.co_flags & CO_NEWLOCALS and not code.co_name.startswith("<"):
            file = path.relative_to(PACKAGE).as_posix()
            self.entered.setdefault(file, set()).add(code.co_qualname)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Note what is entered in this block."""
        threading.setprofile(self.note)
        sys.setprofile(self.note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


async def walk() -> list[dict[str, set[str]]]:
    """Return what the first call enters, and what the second one does."""
    answer = (Send(frames.text("Hello! How can I help?") + frames.ending()),)
    seen = Walk()
    found: list[dict[str, set[str]]] = []
    with fail_after(60), seen.watching():
        async with running() as emulator, connected(emulator) as client:
            for _ in range(2):
                emulator.state.enqueue(answer)
                seen.entered = {}
                result = await client.call_tool("ask_claude", {"prompt": "hello"})
                found.append(seen.entered)
                seen.entered = {}
                assert not result.is_error
    return found


def main() -> int:
    """Print the counts; return the exit code."""
    first, second = anyio.run(walk)
    for name, found in (("first", first), ("later", second)):
        functions = sum(map(len, found.values()))
        print(f"{name} call: {len(found)} files, {functions} named functions")
    if "--list" in sys.argv:
        for file, names in sorted(second.items()):
            print(f"{file}: {len(names)}", *sorted(names), sep="\n    ")
    is_met = len(second) <= MAX_FILES and sum(map(len, second.values())) <= MAX_FUNCTIONS
    print(f"bars: {MAX_FILES} files, {MAX_FUNCTIONS} functions: {'met' if is_met else 'missed'}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
