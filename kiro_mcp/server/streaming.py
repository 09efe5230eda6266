"""The text of an answer as it comes, for callers that ask for it.

MCP has no streamed results: what a tool answers is its result, and progress is for a person to
see that it goes on. A caller that wants more puts `"kiro-mcp/stream": true` beside its
`progressToken` in the call's `_meta`. Its progress notifications then carry, in theirs::

    "kiro-mcp/stream": {"offset": 120, "text": "what came since the last one"}

`offset` counts characters (Unicode code points) of the text before these. It is 0 again where the
model answers a second time, to mend what broke an `output_schema`. Thinking is not in it, nor
what came after the last notification: the result has the whole text, and it is what counts.
"""

from dataclasses import dataclass
from typing import Any, Final

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession

from kiro_mcp.server.answers import RunningAnswer
from kiro_mcp.server.progress import ProgressReporter

STREAM_META_KEY: Final = "kiro-mcp/stream"

STREAM_INTERVAL_SECONDS: Final = 0.05
"""The least time between two notifications that carry text: as smooth as anybody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """How progress reaches the caller."""

    session: ServerSession
    request_id: types.RequestId | None = None
    stream_token: types.ProgressToken | None = None
    """What the text goes out under; None where it was not asked for."""

    @classmethod
    def of(cls, context: ServerRequestContext[Any, Any]) -> "Reporting":
        """Read from a call what its caller asked for."""
        meta = context.meta or {}
        is_asked = meta.get(STREAM_META_KEY) is True
        return cls(
            session=context.session,
            request_id=context.request_id,
            stream_token=meta.get("progress_token") if is_asked else None,
        )

    def on(self, answer: RunningAnswer) -> ProgressReporter:
        """Make what reports on one answer."""
        if self.stream_token is None:
            return ProgressReporter(
                self.session.report_progress, answer_id=answer.id, now=anyio.current_time
            )
        return ProgressReporter(
            _TextReport(self.session, self.request_id, self.stream_token, answer),
            answer_id=answer.id,
            now=anyio.current_time,
            min_interval_seconds=STREAM_INTERVAL_SECONDS,
        )


class _TextReport:
    """Sends progress together with the text that came since the last time."""

    def __init__(
        self,
        session: ServerSession,
        request_id: types.RequestId | None,
        token: types.ProgressToken,
        answer: RunningAnswer,
    ) -> None:
        self._session = session
        self._request_id = request_id
        self._token = token
        self._answer = answer
        self._pieces = answer.pieces
        self._sent_pieces = 0
        self._sent_characters = 0

    async def __call__(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        params = types.ProgressNotificationParams(
            progress_token=self._token, progress=progress, total=total, message=message
        )
        if piece := self._next():
            params.meta = {STREAM_META_KEY: piece}
        await self._session.send_notification(
            types.ProgressNotification(params=params), self._request_id
        )

    def _next(self) -> dict[str, Any]:
        if self._pieces is not self._answer.pieces:
            self._pieces, self._sent_pieces, self._sent_characters = self._answer.pieces, 0, 0
        text = "".join(self._pieces[self._sent_pieces :])
        if not text:
            return {}
        offset = self._sent_characters
        self._sent_pieces = len(self._pieces)
        self._sent_characters += len(text)
        return {"offset": offset, "text": text}
