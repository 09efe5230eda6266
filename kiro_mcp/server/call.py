"""A tool call, apart from its arguments: who makes it, and how its client can be reached."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession

from kiro_mcp.server.owners import OWN

if TYPE_CHECKING:
    from starlette.requests import Request

Result: TypeAlias = types.CallToolResult | types.InputRequiredResult
"""What a tool call gives: its result, or what the person must be asked first."""

CallId: TypeAlias = tuple[str, str]
"""Which client a call comes from, and the id of its request."""

SIGN_IN_INPUT: Final = "kiro_sign_in"
"""The name of the sign-in page in an `InputRequiredResult`."""

STREAM_META_KEY: Final = "kiro-mcp/stream"
"""How a caller asks for the text while it comes, and where it gets it: see `jobs`."""

_MODERN = "2026-07-28"
_PUSHED = "2025-11-25"
_SSE_SESSION = "session_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call, apart from its arguments."""

    id: CallId
    began_at: float
    """When it arrived, on the event loop's clock."""
    owner: str = OWN
    """Whose conversations and answers it may use."""
    session: ServerSession
    request_id: types.RequestId | None
    http_request: "Request | None" = None
    """The HTTP request that brought it; None on stdio."""
    stream_token: types.ProgressToken | None = None
    """The progress token of a caller that wants the text while it comes."""
    page_kind: Literal["", "input_required", "push"] = ""
    """How the person behind it can be shown a page; "" for not at all."""
    page_reply: str = ""
    """What the person said to the page that the same call has shown before; "" for not asked."""

    @classmethod
    def of(
        cls,
        context: ServerRequestContext[Any, Any],
        params: types.CallToolRequestParams,
        *,
        began_at: float,
        owner: str,
    ) -> "Call":
        """Read from a request what its client can do. Only what it has declared is used."""
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
            owner=owner,
            session=context.session,
            request_id=context.request_id,
            http_request=context.request,
            stream_token=meta.get("progress_token") if streams_text else None,
            page_kind=page_kind,
            page_reply=page_reply,
        )

    async def is_gone(self) -> bool:
        """Return whether the connection is closed that the result would go to."""
        if self.http_request is None or _SSE_SESSION in self.http_request.query_params:
            return False  # Nothing is known of stdio's reader, nor of SSE's stream.
        return await self.http_request.is_disconnected()

    async def send_progress(self, progress: int, message: str, piece: dict[str, Any]) -> None:
        """Send a notification with a piece of the text; nothing if progress was not asked for."""
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
    """Tell clients apart, so that they can take turns: by session, else by address and name."""
    request: Request | None = context.request
    if request is None:
        return ""  # stdio has one client.
    session = request.headers.get("mcp-session-id") or request.query_params.get(_SSE_SESSION)
    if session:
        return session
    params = context.session.client_params
    name = params.client_info.name if params else ""
    return f"{request.client.host if request.client else ''} {name}"
