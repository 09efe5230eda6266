"""How the person behind a call can be shown a page: what its client has declared."""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession

Result: TypeAlias = types.CallToolResult | types.InputRequiredResult
"""What a tool call gives: its result, or what is to be asked of the person first."""

SIGN_IN_INPUT: Final = "kiro_sign_in"
"""What the page of a login is called in an `InputRequiredResult`."""

_MODERN = "2026-07-28"
_PUSHED = "2025-11-25"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """How the person behind a call can be shown a page."""

    way: Literal["none", "input_required", "push"] = "none"
    session: ServerSession | None = None
    request_id: types.RequestId | None = None
    reply: str = ""
    """What the person said to the page that the same call has shown before; "" for not asked."""

    @classmethod
    def of(
        cls, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> "Asker":
        """Read from a call what its client can do. Nothing is asked that it did not declare."""
        capabilities = context.session.client_capabilities
        elicitation = capabilities.elicitation if capabilities else None
        if elicitation is None or elicitation.url is None:
            return cls()
        if context.protocol_version >= _MODERN:
            reply = (params.input_responses or {}).get(SIGN_IN_INPUT)
            said = reply.action if isinstance(reply, types.ElicitResult) else ""
            return cls(way="input_required", reply=said)
        if context.protocol_version == _PUSHED:
            return cls(way="push", session=context.session, request_id=context.request_id)
        return cls()
