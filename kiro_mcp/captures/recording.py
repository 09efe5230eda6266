"""Records calls: collects events in the event loop and writes the files in a thread.

The arguments of a call are written when it begins, so that a killed process leaves at least those.
Everything else stays in memory, within limits, until the call ends; then one thread redacts and
writes it. The call never waits for the disk. If writing fails, the capture ends, one log message
says so, and the call goes on.
"""

import atexit
import json
import logging
import os
import platform
import re
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Literal

import anyio.to_thread

from kiro_mcp._version import __version__
from kiro_mcp.captures import folder, redacting
from kiro_mcp.captures.folder import ErrorFacts, ExchangeFacts, Manifest, Outcome, ReadingFacts
from kiro_mcp.captures.replaying import frames_text, outcome_text
from kiro_mcp.chat import Reply
from kiro_mcp.errors import FrameError, KiroError
from kiro_mcp.wire.eventstream import FrameDecoder
from kiro_mcp.wire.reply import ReplyOptions

logger = logging.getLogger(__name__)

Mode = Literal["errors", "all"]
"""Which captures are kept: only those of calls that failed or had warnings, or all."""

MAX_OPEN_CAPTURES: Final = 100
"""How many calls may run or wait for the disk at once; further calls are not captured."""
EXIT_SECONDS: Final = 5.0
"""How long the end of the process waits for files that are still to be written."""

_log_sink: ContextVar[Callable[[str], None] | None] = ContextVar("captured_log", default=None)
"""Receives the log lines of the current call. Tasks and threads inherit it."""


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if (sink := _log_sink.get()) is not None:
            sink(self.format(record))


_log_handler: Final = _LogHandler(logging.DEBUG)
_log_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


class Captures:
    """Captures the calls of one server.

    Each has a folder in `root`. A file is cut at `max_file_bytes`, and all files of a call together
    have at most `max_call_bytes`. `now` gives the time with its zone, and `new_id` a UUID.
    """

    def __init__(
        self,
        root: Path,
        mode: Mode,
        *,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        max_file_bytes: int = folder.MAX_FILE_BYTES,
        max_call_bytes: int = folder.MAX_CALL_BYTES,
    ) -> None:
        self.mode: Mode = mode
        self.now = now
        self.max_file_bytes = max_file_bytes
        self.max_call_bytes = max_call_bytes
        self._root = root
        self._new_id = new_id
        self.room = threading.BoundedSemaphore(MAX_OPEN_CAPTURES)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # The package logs at DEBUG for captures. Other handlers have levels of their own.
        package = logging.getLogger("kiro_mcp")
        package.addHandler(_log_handler)  # Added once, however often this is called.
        package.setLevel(logging.DEBUG)

    def begin(self, arguments: Mapping[str, Any]) -> "CallCapture | None":
        """Begin to capture a call; return None if too many calls are being captured."""
        if not self.room.acquire(blocking=False):
            logger.warning("writing to %s is too slow: a call is not captured", self._root)
            return None
        began_at = self.now().astimezone(UTC)
        path = self._root / f"{began_at:%Y%m%dT%H%M%S.%fZ}-{self._new_id()[:8]}"
        return CallCapture(self, path, arguments)

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job in the thread, after all earlier jobs. It must not raise."""
        if self._thread is None:
            # A daemon thread never keeps a process from ending.
            self._thread = threading.Thread(target=self._work, name="captures", daemon=True)
            self._thread.start()
            atexit.register(self.close)
        self._jobs.put(job)

    def close(self, timeout_seconds: float = EXIT_SECONDS) -> None:
        """Wait until everything is written, but not longer than the timeout. Blocking."""
        if self._thread is not None:
            atexit.unregister(self.close)
            self._jobs.put(None)
            self._thread.join(timeout_seconds)
            self._thread = None

    async def aclose(self) -> None:
        """Wait until everything is written. If cancelled, leave the rest to the thread."""
        await anyio.to_thread.run_sync(self.close, abandon_on_cancel=True)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


@dataclass(slots=True)
class _Exchange:
    """The recorded data of one request and its response."""

    facts: ExchangeFacts
    options: ReplyOptions | None = None
    raw: bytearray = field(default_factory=bytearray)
    reply: Reply | None = None
    error: KiroError | None = None


class CallCapture:
    """Captures one call. Implements `Recorder`. Its methods return at once and never raise."""

    def __init__(self, captures: Captures, path: Path, arguments: Mapping[str, Any]) -> None:
        self.outlives_call = False
        """Whether the capture ends with the answer instead of with the call."""
        self._captures = captures
        self._path = path
        self._began_at = captures.now()
        self._manifest = Manifest(kiro_mcp=__version__, began_at=self._began_at.isoformat())
        self._exchanges: list[_Exchange] = []
        self._current: _Exchange | None = None
        """The exchange that was sent last; None after the end or past a limit."""
        self._log_lines: list[str] = []
        self._log_room = captures.max_file_bytes
        self._raw_room = captures.max_call_bytes
        self._is_over = False
        # Used in the thread only:
        self._has_failed = False
        self._file_room = captures.max_call_bytes
        self._submit(lambda: self._write_beginning(arguments))

    # --- events of the call, in the event loop --------------------------------------------

    def sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Record a request."""
        logger.debug("%s %s, %d bytes", method, url, len(body))
        self._current = None
        if self._is_over:
            return
        if len(self._exchanges) >= folder.MAX_EXCHANGES:
            self._manifest.unkept_exchanges += 1
            return
        facts = ExchangeFacts(
            number=len(self._exchanges) + 1,
            method=method,
            url=url,
            request_headers=dict(headers),
            sent_after_seconds=self._seconds(),
        )
        self._current = _Exchange(facts)
        self._exchanges.append(self._current)
        self._submit(lambda: self._write_body(facts, body))

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Record the status and the headers of the response."""
        logger.debug("answered with status %d", status)
        if self._current is not None:
            facts = self._current.facts
            facts.status, facts.response_headers = status, dict(headers)
            facts.answered_after_seconds = self._seconds()

    def reads_with(self, options: ReplyOptions) -> None:
        """Record the options with which the response will be read."""
        if self._current is not None:
            self._current.options = options

    def received(self, chunk: bytes) -> None:
        """Record the next bytes of the response's body; past a limit, only their number."""
        if (current := self._current) is None:
            return
        facts = current.facts
        facts.received_bytes += len(chunk)
        facts.last_bytes_after_seconds = self._seconds()
        if facts.first_bytes_after_seconds is None:
            facts.first_bytes_after_seconds = facts.last_bytes_after_seconds
        kept = chunk[: min(self._captures.max_file_bytes - len(current.raw), self._raw_room)]
        current.raw += kept
        self._raw_room -= len(kept)
        facts.is_whole = facts.is_whole and len(kept) == len(chunk)

    def replied(self, reply: Reply) -> None:
        """Record the reply that was read from the response."""
        logger.debug("the answer ended: %s, %d parts", reply.stop_reason, len(reply.parts))
        if self._current is not None:
            self._current.reply = reply

    def failed(self, error: KiroError) -> None:
        """Record why the exchange failed."""
        logger.debug("the attempt failed: %s: %s", error.code, error)
        if self._current is not None:
            self._current.error = error

    @contextmanager
    def log(self) -> Generator[None]:
        """Add the log lines of the block, and of the tasks that it starts, to the capture."""
        token = _log_sink.set(self._log)
        try:
            yield
        finally:
            _log_sink.reset(token)

    def finish(
        self, outcome: Outcome, error: Mapping[str, Any] | None = None, *, is_odd: bool = False
    ) -> None:
        """End the capture, which must be done once. Later events are not recorded.

        A call that failed or is incomplete has an error, with details. The capture of one that
        succeeded is kept if it was odd, or if all are kept.
        """
        if self._captures.mode == "all" or is_odd or outcome != "completed":
            logger.info("the call is captured in %s", self._path)
            self._manifest.outcome = outcome
            self._manifest.seconds = self._seconds()
            self._submit(lambda: self._write_end(error))
        else:
            self._submit(lambda: _remove(self._path))
        self._is_over = True
        self._current = None
        self._captures.submit(self._captures.room.release)

    def _log(self, line: str) -> None:
        if not self._is_over and self._log_room > 0:
            self._log_lines.append(line)
            self._log_room -= len(line)

    def _seconds(self) -> float:
        return (self._captures.now() - self._began_at).total_seconds()

    def _submit(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            if self._has_failed:
                return
            try:
                work()
            except OSError as error:
                self._has_failed = True
                logger.warning("a call cannot be captured in %s: %s", self._path, error)
            except Exception:
                # A bug of ours must not end the thread, because other calls need it.
                self._has_failed = True
                logger.exception("a call cannot be captured in %s", self._path)

        self._captures.submit(guarded)

    # --- in the thread --------------------------------------------------------------------

    def _write_beginning(self, arguments: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.mkdir(mode=0o700)
        self._manifest.python = platform.python_version()
        self._manifest.platform = platform.platform()
        self._write(folder.REQUEST, _json(arguments))
        self._write_manifest()

    def _write_body(self, facts: ExchangeFacts, body: bytes) -> None:
        facts.is_prompt = b'"conversationState"' in body
        try:
            parsed = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            parsed = body.decode(errors="replace")
        self._write(folder.KIRO_REQUEST, _json(parsed), facts.number)

    def _write_end(self, error: Mapping[str, Any] | None) -> None:
        for exchange in self._exchanges:
            self._write_exchange(exchange)
            self._manifest.exchanges.append(exchange.facts)
        lines = "".join(f"{line}\n" for line in self._log_lines)
        self._write(folder.LOGS, _encoded(redacting.redacted_text(lines)))
        if error is not None:
            exchanges = self._manifest.exchanges
            last = exchanges[-1] if exchanges else ExchangeFacts()
            attempts = [
                {"number": one.number, "status_code": one.status, **one.error.model_dump()}
                for one in exchanges
                if one.error is not None
            ]
            facts = {
                "status_code": last.status,
                "response_headers": last.response_headers,
                "attempts": attempts,
            }
            self._write(folder.ERROR, _json({**facts, **error}))
        self._write_manifest()
        found = self._path.parent.iterdir()
        found = (one for one in found if folder.FOLDER_NAME.fullmatch(one.name))
        captures = sorted(one for one in found if one.is_dir() and not one.is_symlink())
        for capture in captures[: -folder.MAX_CAPTURES]:
            _remove(capture)

    def _write_exchange(self, exchange: _Exchange) -> None:
        facts, reply, error = exchange.facts, exchange.reply, exchange.error
        facts.request_headers = redacting.shown_request_headers(facts.request_headers)
        facts.response_headers = redacting.shown_response_headers(facts.response_headers)
        if exchange.options is not None:
            facts.reading = ReadingFacts.model_validate(exchange.options, from_attributes=True)
        if error is not None:
            facts.error = _error_facts(error)
        if exchange.raw:
            reading = facts.reading or ReadingFacts()
            limits = reading.max_payload_bytes, reading.max_headers_bytes
            is_cut = not facts.is_whole
            raw = redacting.redacted_stream(
                bytes(exchange.raw), FrameDecoder(*limits), is_cut=is_cut
            )
            facts.is_whole = self._write(folder.RAW, raw, facts.number, is_cut=is_cut)
            lines = frames_text(raw, FrameDecoder(*limits))
            self._write(folder.FRAMES, _encoded("".join(f"{one}\n" for one in lines)), facts.number)
        if reply is not None:
            facts.tool_use_ids = [use.id for use in reply.tool_uses]
            # A replay finds an error in the frames itself, so it is not recorded.
            if isinstance(reply.fault, KiroError) and not isinstance(reply.fault, FrameError):
                facts.fault = _error_facts(reply.fault)
        if outcome := reply or error:
            text = redacting.redacted_text(outcome_text(outcome))
            self._write(folder.REPLY, _encoded(text), facts.number)

    def _write_manifest(self) -> None:
        data = _json(self._manifest.model_dump(mode="json"))
        if len(data) > folder.MAX_FILE_BYTES:
            for exchange in self._manifest.exchanges:
                exchange.reading = None  # It contains the tools' schemas, which can be large.
            data = _json(self._manifest.model_dump(mode="json"))
        # Written to a temporary file and renamed, so that readers never see a part of it.
        temporary = self._path / f"{folder.MANIFEST}.tmp"
        _create(temporary, data)
        temporary.replace(self._path / folder.MANIFEST)

    def _write(self, name: str, data: bytes, number: int = 1, *, is_cut: bool = False) -> bool:
        """Write a file of a request unless it is empty; return whether all of it was written."""
        name = folder.numbered(name, number)
        kept = data[: min(self._captures.max_file_bytes, self._file_room)]
        self._file_room -= len(kept)
        if kept:
            _create(self._path / name, kept)
        if is_cut or len(kept) < len(data):
            self._manifest.cut_files.append(name)
            return False
        return True


def _create(path: Path, data: bytes) -> None:
    with open(path, "wb", opener=partial(os.open, mode=0o600)) as file:
        file.write(data)


def _remove(capture: Path) -> None:
    """Remove the files of a capture, and its folder if that leaves it empty."""
    with suppress(OSError):  # Another process may be removing it, or a file is not ours.
        for file in capture.iterdir():
            name = re.sub(r"-\d{1,3}\.", ".", file.name.removesuffix(".tmp"))  # See `numbered`.
            if name in folder.FILES:
                file.unlink()
        capture.rmdir()


def _error_facts(error: KiroError) -> ErrorFacts:
    return ErrorFacts.model_validate(error, from_attributes=True)


def _json(value: Any) -> bytes:
    text = json.dumps(redacting.redacted_json(value), ensure_ascii=False, indent=2)
    return _encoded(f"{text}\n")


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # Arguments may contain lone surrogates.
