"""The tool `login`: whether a credential is there, which one and where it came from."""

import mcp_types as types

from kiro_mcp.auth.tokens import Credential, access_token
from kiro_mcp.errors import KiroError
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.results import compact_json, success

_HOW_TO_SIGN_IN = (
    "Set KIRO_API_KEY (made at https://app.kiro.dev, plans Pro and above) where this server is"
    " configured, then start it again."
)


def status(engine: Engine) -> types.CallToolResult:
    """Answer `login(action="status")`. Nothing is sent: a key is shown, not proven."""
    try:
        credential = engine.tokens.credential()
    except KiroError as error:
        return _state("signed_out", next_step=str(error))
    if credential is None:
        return _state("signed_out", next_step=_HOW_TO_SIGN_IN)
    return _signed_in(credential, engine)


def _signed_in(credential: Credential, engine: Engine) -> types.CallToolResult:
    token = access_token(credential, api_region=engine.settings.api_region)
    return _state(
        "signed_in",
        method=credential.kind,
        account=_masked(credential.secret),
        source=credential.source,
        profile_arn=token.profile_arn,
        region=token.region,
        next_step="Call `ask_claude`.",
    )


def _masked(secret: str) -> str:
    """Show enough of a secret to tell two apart: its kind and its last four characters."""
    kind = secret[:4] if secret.startswith("ksk_") else ""
    return f"{kind}…{secret[-4:]}" if len(secret) >= 16 else "…"


def _state(state: str, **facts: str) -> types.CallToolResult:
    structured = {"state": state, **facts}
    lines = [f"{name}: {value}" for name, value in structured.items() if value]
    return success("\n".join(lines), structured, more=compact_json(structured))
