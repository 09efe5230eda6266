"""A page in a headless Chromium, driven by the DevTools protocol over a pair of pipes.

Chromium reads commands from descriptor 3 and writes to descriptor 4, each message JSON with a
NUL byte behind it (`--remote-debugging-pipe`): there is no port to find, and the browser ends by
itself when the pipes close. https://chromedevtools.github.io/devtools-protocol/
"""

import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from subprocess import DEVNULL
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.support.optional import Unavailable
from tests.support.stdio import PipeReader

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome")

START_SECONDS = 60
END_SECONDS = 10
POLL_SECONDS = 0.1
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--window-size=1400,1000",
    "--no-first-run",
    "--disable-gpu",
    # What would only look for hosts that a test has no use for.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
)

_ON_3_AND_4 = (
    "import os, sys;"
    "os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """A running Chromium."""

    def __init__(self, commands: int, answers: PipeReader) -> None:
        self._commands = commands
        self._answers = BufferedByteReceiveStream(answers)
        self._last_id = 0

    async def send(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and return its result, skipping events."""
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": params}
        if session:
            command["sessionId"] = session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        answer: dict[str, Any] = {}
        while answer.get("id") != self._last_id:
            answer = json.loads(await self._answers.receive_until(b"\0", MAX_MESSAGE_BYTES))
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    async def open(self, url: str) -> "Page":
        """Open a page in a new tab."""
        target = await self.send("Target.createTarget", url=url)
        attached = await self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        return Page(self, attached["sessionId"])


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def value(self, script: str) -> Any:
        """Return what an expression is."""
        done = await self._browser.send(
            "Runtime.evaluate", self._session, expression=script, returnByValue=True
        )
        assert "exceptionDetails" not in done, f"{script}: {done['exceptionDetails']}"
        return done["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression is true, and return what it is."""
        while True:
            if value := await self.value(script):
                return value
            await anyio.sleep(POLL_SECONDS)

    async def click(self, element: str) -> None:
        """Click on what an expression finds, once it is there."""
        await self.until(f"(found => found && (found.click(), true))({element})")

    async def type(self, element: str, text: str) -> None:
        """Type into what an expression finds, as a keyboard does."""
        await self.until(f"(found => found && (found.focus(), true))({element})")
        await self._browser.send("Input.insertText", self._session, text=text)

    async def text(self) -> str:
        """Return what the page shows."""
        return str(await self.value("document.body?.innerText ?? ''"))


@asynccontextmanager
async def chromium() -> AsyncGenerator[Browser]:
    """Start a browser with an empty profile, and make sure that it is gone in the end.

    Raises:
        Unavailable: There is none on this machine.
    """
    found = [path for path in map(shutil.which, NAMES) if path]
    if not found:
        raise Unavailable(f"there is no Chromium ({', '.join(NAMES)})")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    (theirs_in, ours_out), (ours_in, theirs_out) = _high(*os.pipe()), _high(*os.pipe())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [found[0], *_FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        process = await anyio.open_process(
            [sys.executable, "-c", _ON_3_AND_4, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        async with process, PipeReader(ours_in) as answers:
            try:
                yield Browser(ours_out, answers)
            finally:
                os.close(ours_out)
                with anyio.move_on_after(END_SECONDS, shield=True):
                    await process.wait()
                if process.returncode is None:
                    process.kill()


def _high(*descriptors: int) -> tuple[int, ...]:
    """Return duplicates that are not in the way of 3 and 4, in place of the descriptors."""
    high = tuple(fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in descriptors)
    for one in descriptors:
        os.close(one)
    return high
