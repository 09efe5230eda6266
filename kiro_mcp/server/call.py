"""The context of a tool call: its caller, and what its client can show a person."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession

if TYPE_CHECKING:
    from starlette.requests import Request

Result: TypeAlias = types.CallToolResult | types.InputRequiredResult
"""The result of a tool call, or what the person must be asked first."""

CallId: TypeAlias = tuple[str, str]
"""The client of a call, and the id of its request."""

SIGN_IN_INPUT: Final = "kiro_sign_in"
"""The name of the sign-in page in an `InputRequiredResult`."""

STREAM_META_KEY: Final = "kiro-mcp/stream"
"""In `_meta`: asks for the text while it arrives, and contains it. See `jobs`."""

_MODERN = "2026-07-28"
_PUSHED = "2025-11-25"
_SSE_SESSION = "session_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The context of a tool call: everything except its arguments."""

    id: CallId
    began_at: float
    """When it arrived, on the event loop's clock."""
    session: ServerSession
    request_id: types.RequestId | None
    http_request: "Request | None" = None
    """The HTTP request that brought it; None on stdio."""
    stream_token: types.ProgressToken | None = None
    """The progress token of a caller that wants the text while it arrives."""
    page_kind: Literal["", "input_required", "push"] = ""
    """How its client can show a page to a person; "" if it cannot."""
    page_reply: str = ""
    """The person's reply to the page that the same call has shown before; "" if not asked."""

    @classmethod
    def of(
        cls,
        context: ServerRequestContext[Any, Any],
        params: types.CallToolRequestParams,
        *,
        began_at: float,
    ) -> "Call":
        """Read the context of a request. Only features that the client has declared are used."""
        capabilities = context.session.client_capabilities
        elicitation = capabilities.elicitation if capabilities else None
        page_kind: Literal["", "input_required", "push"] = ""
        page_reply = ""
        if elicitation and elicitation.url is not None:
            if context.protocol_version >= _MODERN:
                page_kind = "input_required"
                reply = (params.input_responses or {}).get(SIGN_IN_INPUT)
                page_reply = reply.action if isinstance(reply, types.ElicitResult) else ""
            elif context.protocol_version == _PUSHED:
                page_kind = "push"
        meta = context.meta or {}
        streams_text = meta.get(STREAM_META_KEY) is True
        return cls(
            id=(client_of(context), str(context.request_id)),
            began_at=began_at,
            session=context.session,
            request_id=context.request_id,
            http_request=context.request,
            stream_token=meta.get("progress_token") if streams_text else None,
            page_kind=page_kind,
            page_reply=page_reply,
        )

    async def is_gone(self) -> bool:
        """Whether the client has closed the connection that waits for the result."""
        if self.http_request is None or _SSE_SESSION in self.http_request.query_params:
            return False  # For stdio and SSE this is not known here.
        return await self.http_request.is_disconnected()

    async def send_progress(self, progress: int, message: str, piece: dict[str, Any]) -> None:
        """Send a progress notification with a piece of the text, if the caller asked for it."""
        if self.stream_token is None:
            await self.session.report_progress(progress, message=message)
            return
        params = types.ProgressNotificationParams(
            progress_token=self.stream_token, progress=progress, message=message
        )
        if piece:
            params.meta = {STREAM_META_KEY: piece}
        await self.session.send_notification(
            types.ProgressNotification(params=params), self.request_id
        )


def client_of(context: ServerRequestContext[Any, Any]) -> str:
    """Return what tells clients apart, so that they take turns: session, else address and name."""
    request: Request | None = context.request
    if request is None:
        return ""  # stdio has one client.
    session = request.headers.get("mcp-session-id") or request.query_params.get(_SSE_SESSION)
    if session:
        return session
    params = context.session.client_params
    name = params.client_info.name if params else ""
    return f"{request.client.host if request.client else ''} {name}"
