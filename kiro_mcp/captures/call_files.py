"""The files of one captured call, written while it goes on. Blocking: used in one thread.

What came over the wire is on disk as soon as it can be, so that a call that hangs, or whose
process is killed, leaves what there was. The rest is written when the call ends.
"""

import json
import platform
from collections.abc import Mapping
from typing import Any

from kiro_mcp._version import __version__
from kiro_mcp.captures import Outcome, folder
from kiro_mcp.captures.capped_folder import CappedFolder, remove_oldest
from kiro_mcp.captures.folder import MAX_FILE_BYTES, numbered
from kiro_mcp.captures.heads import shown_request_headers, shown_response_headers
from kiro_mcp.captures.left_out import abridged, without_identities
from kiro_mcp.captures.manifest import (
    MAX_EXCHANGES,
    ErrorFacts,
    ExchangeFacts,
    Manifest,
    ReadingFacts,
    ToolFacts,
)
from kiro_mcp.captures.masking import StreamMask
from kiro_mcp.captures.rendering import error_text, frames_text, reply_text
from kiro_mcp.chat import Reply
from kiro_mcp.errors import FrameError, KiroError
from kiro_mcp.redaction import redact, redact_json
from kiro_mcp.wire.reply import ReplyOptions


class CallFiles:
    """Writes one call down. Times are seconds from its beginning; errors are `OSError`."""

    def __init__(self, files: CappedFolder, *, began_at: str) -> None:
        self._files = files
        self._manifest = Manifest(kiro_mcp=__version__, began_at=began_at)
        self._exchange: ExchangeFacts | None = None
        self._mask: StreamMask | None = None
        self._has_reply = False

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Note what the caller asked."""
        self._files.create()
        self._manifest.python = platform.python_version()
        self._manifest.platform = platform.platform()
        self._write_json(folder.REQUEST, arguments)
        self._write_manifest()

    def log(self, line: str) -> None:
        """Note a line of the log."""
        self._write_text(folder.LOGS, f"{line}\n")

    # --- over the wire --------------------------------------------------------------------

    def sent(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> None:
        """Note a request; what comes then is about the answer to it."""
        self._end_exchange()
        if len(self._manifest.exchanges) >= MAX_EXCHANGES:
            self._manifest.unkept_exchanges += 1
            return
        self._exchange = ExchangeFacts(
            number=len(self._manifest.exchanges) + 1,
            method=method,
            url=url,
            request_headers=shown_request_headers(headers),
            is_prompt=b'"conversationState"' in body,
            sent_after_seconds=seconds,
        )
        self._manifest.exchanges.append(self._exchange)
        self._mask = None
        self._has_reply = False
        self._write_json(numbered(folder.KIRO_REQUEST, self._exchange.number), _parsed(body))
        self._write_manifest()

    def answered(self, status: int, headers: Mapping[str, str], seconds: float) -> None:
        """Note the head of an answer."""
        if self._exchange is not None:
            self._exchange.status = status
            self._exchange.response_headers = shown_response_headers(headers)
            self._exchange.answered_after_seconds = seconds
            self._write_manifest()

    def reads_with(self, options: ReplyOptions) -> None:
        """Note how the answer is going to be read."""
        if self._exchange is not None:
            self._exchange.reading = _reading(options)
            self._write_manifest()

    def received(self, kept: bytes, size: int, seconds: float) -> None:
        """Note bytes of the answer: what is to be kept of them, and how many they were."""
        exchange = self._exchange
        if exchange is None:
            return
        _note_bytes(exchange, size, seconds)
        if not exchange.is_whole:
            return
        if self._mask is None:
            self._mask = StreamMask(**(exchange.reading or ReadingFacts()).limits)
        self._append_raw(exchange, self._mask.feed(kept))
        exchange.is_whole = exchange.is_whole and len(kept) == size

    def replied(self, reply: Reply) -> None:
        """Note what was made of the answer."""
        if self._exchange is None:
            return
        self._has_reply = True
        self._exchange.tool_use_ids = [use.id for use in reply.tool_uses]
        # A fault of the bytes is found again when they are read again.
        if isinstance(reply.fault, KiroError) and not isinstance(reply.fault, FrameError):
            self._exchange.fault = _error(reply.fault)
        self._write_text(numbered(folder.REPLY, self._exchange.number), reply_text(reply))

    def failed(self, error: KiroError) -> None:
        """Note why the exchange came to nothing."""
        if self._exchange is None:
            return
        self._exchange.error = _error(error)
        if not self._has_reply:
            self._write_text(numbered(folder.REPLY, self._exchange.number), error_text(error))

    # --- the end --------------------------------------------------------------------------

    def finish(self, outcome: Outcome, error: Mapping[str, Any] | None, seconds: float) -> None:
        """Write what is known only now, and make room: the oldest captures go."""
        self._end_exchange()
        self._manifest.outcome = outcome
        self._manifest.seconds = seconds
        if error is not None:
            self._write_json(folder.ERROR, {**self._last_status(), **error})
        self._write_manifest()
        remove_oldest(self._files.path.parent)

    def discard(self) -> None:
        """Remove what was written."""
        self._files.remove()

    def _last_status(self) -> dict[str, Any]:
        exchanges = self._manifest.exchanges
        last = exchanges[-1] if exchanges else ExchangeFacts()
        return {
            "status_code": last.status,
            "response_headers": last.response_headers,
            "attempts": [
                {"number": one.number, "status_code": one.status, **one.error.model_dump()}
                for one in exchanges
                if one.error is not None
            ],
        }

    def _end_exchange(self) -> None:
        if self._exchange is None:
            return
        if self._mask is not None and self._exchange.is_whole:
            self._append_raw(self._exchange, self._mask.close())
        if raw := self._files.read(numbered(folder.RAW, self._exchange.number)):
            name = numbered(folder.FRAMES, self._exchange.number)
            reading = self._exchange.reading or ReadingFacts()
            lines = frames_text(raw, **reading.limits)
            self._files.append(name, _encoded("".join(f"{line}\n" for line in lines)))
        self._exchange = None

    def _append_raw(self, exchange: ExchangeFacts, data: bytes) -> None:
        if not self._files.append(numbered(folder.RAW, exchange.number), data):
            exchange.is_whole = False

    # --- files ----------------------------------------------------------------------------

    def _write_json(self, name: str, value: Any) -> None:
        self._files.append(name, _json(value))

    def _write_text(self, name: str, text: str) -> None:
        self._files.append(name, _encoded(without_identities(redact(text))))

    def _write_manifest(self) -> None:
        self._manifest.cut_files = self._files.cut_files
        data = _json(self._manifest.model_dump(mode="json"))
        if len(data) > MAX_FILE_BYTES:
            for exchange in self._manifest.exchanges:
                exchange.reading = None  # Its tools are what can be large.
            data = _json(self._manifest.model_dump(mode="json"))
        self._files.replace(folder.MANIFEST, data)


def _note_bytes(exchange: ExchangeFacts, size: int, seconds: float) -> None:
    exchange.received_bytes += size
    exchange.last_bytes_after_seconds = seconds
    if exchange.first_bytes_after_seconds is None:
        exchange.first_bytes_after_seconds = seconds


def _reading(options: ReplyOptions) -> ReadingFacts:
    tools = [
        ToolFacts(name=tool.name, input_schema=tool.input_schema)
        for tool in options.get("tools", ())
    ]
    return ReadingFacts.model_validate({**options, "tools": tools})


def _error(error: KiroError) -> ErrorFacts:
    return ErrorFacts(code=error.code, message=error.message, next_step=error.next_step)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return body.decode(errors="replace")


def _json(value: Any) -> bytes:
    return _encoded(json.dumps(redact_json(abridged(value)), ensure_ascii=False, indent=2) + "\n")


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # Half surrogate pairs are in some arguments.
