"""A call is captured: what happens to it, in the event loop -> what is written, in a thread.

Nothing here waits for the disk, and nothing that goes wrong there reaches the call: the capture
ends, and the log says so once.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import anyio.to_thread

from kiro_mcp.captures import Outcome
from kiro_mcp.captures.call_files import CallFiles
from kiro_mcp.captures.capped_folder import CappedFolder
from kiro_mcp.captures.folder import MAX_FILE_BYTES
from kiro_mcp.captures.logs import logging_to, watch_log
from kiro_mcp.captures.writer import Writer
from kiro_mcp.chat import Reply
from kiro_mcp.errors import KiroError
from kiro_mcp.wire.reply import ReplyOptions

logger = logging.getLogger(__name__)

Mode = Literal["errors", "all"]
"""Which captures are kept: those of calls that failed or were odd, or all."""

MAX_WAITING_JOBS: Final = 10_000
"""How many may wait for the disk when a call begins; beyond it, the call is not captured."""

_ID_CHARACTERS: Final = 8


class Captures:
    """Captures the calls of one server.

    Args:
        root: The folder of the captures' folders.
        mode: Which are kept.
        now: The time, with its zone.
        new_id: Makes UUIDs.
        writer: The thread that writes; by default one of its own.
    """

    def __init__(
        self,
        root: Path,
        mode: Mode,
        *,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        writer: Writer | None = None,
    ) -> None:
        self._root = root
        self._mode: Mode = mode
        self._now = now
        self._new_id = new_id
        self._writer = writer or Writer()
        watch_log()

    def begin(self, arguments: Mapping[str, Any]) -> "CallCapture | None":
        """Begin to capture a call; None where the disk is far behind."""
        if self._writer.waiting_jobs > MAX_WAITING_JOBS:
            logger.warning("%s is too slow: a call is not captured", self._root)
            return None
        began_at = self._now().astimezone(UTC)
        name = f"{began_at:%Y%m%dT%H%M%S.%fZ}-{self._new_id()[:_ID_CHARACTERS]}"
        return CallCapture(
            CappedFolder(self._root / name),
            arguments,
            mode=self._mode,
            submit=self._writer.submit,
            now=self._now,
        )

    async def aclose(self) -> None:
        """Wait until all is written. Cancelled, it leaves the rest to the thread."""
        await anyio.to_thread.run_sync(self._writer.close, abandon_on_cancel=True)


class CallCapture:
    """Captures one call; a `Recorder`, too. Its methods return at once and never raise."""

    def __init__(
        self,
        folder: CappedFolder,
        arguments: Mapping[str, Any],
        *,
        mode: Mode,
        submit: Callable[[Callable[[], None]], None],
        now: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._mode: Mode = mode
        self._submit = submit
        self._now = now
        self._began_at = now()
        self._files = CallFiles(folder, began_at=self._began_at.isoformat())
        self.outlives_call = False
        """Whether an answer ends it, and not the call that asked for that."""
        self._received_bytes = 0
        self._is_over = False
        self._do(self._files.begin, arguments)

    # --- what happens to the call ---------------------------------------------------------

    def sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Note a request."""
        logger.debug("%s %s, %d bytes", method, url, len(body))
        self._received_bytes = 0
        self._do(self._files.sent, method, url, dict(headers), body, self._seconds())

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Note the head of the answer to it."""
        logger.debug("answered with status %d", status)
        self._do(self._files.answered, status, dict(headers), self._seconds())

    def reads_with(self, options: ReplyOptions) -> None:
        """Note how the answer is going to be read."""
        self._do(self._files.reads_with, options)

    def received(self, chunk: bytes) -> None:
        """Note the next bytes of the answer's body."""
        self._received_bytes += len(chunk)
        # Past the limit of the file they are counted, and not queued: memory has a limit, too.
        kept = chunk if self._received_bytes <= MAX_FILE_BYTES else b""
        self._do(self._files.received, kept, len(chunk), self._seconds())

    def replied(self, reply: Reply) -> None:
        """Note what was made of the answer."""
        logger.debug("the answer ended: %s, %d parts", reply.stop_reason, len(reply.parts))
        self._do(self._files.replied, reply)

    def failed(self, error: KiroError) -> None:
        """Note why the exchange came to nothing."""
        logger.debug("the attempt failed: %s: %s", error.code, error)
        self._do(self._files.failed, error)

    # --- its end --------------------------------------------------------------------------

    def finish(
        self, outcome: Outcome, error: Mapping[str, Any] | None = None, *, is_odd: bool = False
    ) -> None:
        """End the capture. Whatever comes later is not noted.

        Args:
            outcome: How the call ended.
            error: What is said of a call that failed or is incomplete.
            is_odd: Whether the call is worth keeping although it succeeded.
        """
        if self._mode == "all" or is_odd or outcome != "completed":
            logger.info("the call is captured in %s", self._folder.path)
            self._do(self._files.finish, outcome, error, self._seconds())
        else:
            self._do(self._files.discard)
        self._submit(self._end)

    def log(self) -> AbstractContextManager[None]:
        """Make what is logged in a block part of the capture."""
        return logging_to(partial(self._do, self._files.log))

    def _seconds(self) -> float:
        return (self._now() - self._began_at).total_seconds()

    def _do(self, work: Callable[..., None], *arguments: Any) -> None:
        self._submit(partial(self._guarded, work, *arguments))

    # --- in the thread --------------------------------------------------------------------

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        if self._is_over:
            return
        try:
            work(*arguments)
        except OSError as error:
            self._is_over = True
            logger.warning("a call cannot be captured in %s: %s", self._folder.path, error)
        except Exception:
            # A defect of ours must not end the thread, which other calls need.
            self._is_over = True
            logger.exception("a call cannot be captured in %s", self._folder.path)

    def _end(self) -> None:
        self._is_over = True
