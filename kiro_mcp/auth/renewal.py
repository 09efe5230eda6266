"""A renewed login in the document it came from: only what is new changes. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import cast

from kiro_mcp.auth.credential_files import NESTS, camel, member_of
from kiro_mcp.auth.timestamps import MILLISECONDS_FROM, format_time
from kiro_mcp.auth.tokens import Credential


def merged(document: Mapping[str, object], renewed: Credential) -> dict[str, object]:
    """Return the document with the renewed tokens, in the spelling and place that it has them.

    Region, scopes and all that is unknown here stay as they are: they are their owner's.
    """
    result = dict(document)
    changes: dict[str, object] = {
        "access_token": renewed.access_token,
        "refresh_token": renewed.refresh_token,
        "expires_at": _as_before(document, renewed.expires_at),
    }
    if renewed.kind == "social" and renewed.profile_arn:
        changes["profile_arn"] = renewed.profile_arn
    for name, value in changes.items():
        _put(result, name, value)
    return result


def _put(document: dict[str, object], name: str, value: object) -> None:
    for nest in NESTS:
        inner = document.get(nest)
        if isinstance(inner, dict):
            members = cast("dict[str, object]", inner)
            if spelling := _spelling(members, name):
                document[nest] = {**members, spelling: value}
                return
    document[_spelling(document, name) or _usual_spelling(document, name)] = value


def _spelling(members: Mapping[str, object], name: str) -> str:
    return next((spelling for spelling in (name, camel(name)) if spelling in members), "")


def _usual_spelling(document: Mapping[str, object], name: str) -> str:
    is_snake = any("_" in member for member in document)
    return name if is_snake else camel(name)


def _as_before(document: Mapping[str, object], moment: datetime | None) -> object:
    """Write a date in the form in which the document has it: text, or a number of its unit."""
    before = member_of(document, "expires_at")
    if moment is None:
        return before
    if isinstance(before, int | float) and not isinstance(before, bool):
        unit = 1000 if before > MILLISECONDS_FROM else 1
        return int(moment.timestamp() * unit)
    return format_time(moment)


def own_document(credential: Credential) -> dict[str, object]:
    """Write a login as our own store keeps it; `credential_files` reads it back."""
    client = credential.client
    members: dict[str, object] = {
        "authMethod": credential.kind,
        "accessToken": credential.access_token,
        "refreshToken": credential.refresh_token,
        "expiresAt": format_time(credential.expires_at) if credential.expires_at else "",
        "profileArn": credential.profile_arn,
        "region": credential.region,
        "startUrl": credential.start_url,
        "clientId": client.client_id if client else "",
        "clientSecret": client.client_secret if client else "",
        "clientExpiresAt": format_time(client.expires_at) if client and client.expires_at else "",
        "tokenEndpoint": credential.token_endpoint,
        "issuerUrl": credential.issuer_url,
        "scopes": list(credential.scopes),
    }
    return {name: value for name, value in members.items() if value}
