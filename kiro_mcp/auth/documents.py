"""Reads a `Credential` from JSON or text, and writes it back. Pure.

One reader serves the Kiro IDE's file, the AWS SSO cache, kiro-cli's rows, files of other gateways
and our own store. Names are in camel or snake case, at the top level or under `metadata` or
`attributes`. A renewed login is written into the document that it came from; only the tokens and
their end change.

A date is ISO 8601 with 0 to 9 digits after the second, and with `Z`, an offset or neither; or it
counts seconds or milliseconds since the epoch, as a number or as text.
"""

import json
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, cast

from kiro_mcp.auth.credentials import (
    BUILDER_ID_START_URL,
    ClientRegistration,
    Credential,
    CredentialKind,
    jwt_expiry,
)
from kiro_mcp.client.management import MILLISECONDS_FROM, time_since_epoch

BUILDER_ID_CLIENT_HASH: Final = "e909a0580879b06ece1202964fbe9dda95ea4ce3"
"""Builder ID's `clientIdHash`: the SHA-1 of its start URL as `{"startUrl":"…"}`."""

API_KEY_PREFIX: Final = "ksk_"
"""All API keys begin with this. No access token does."""

_METHODS: Final[Mapping[str, CredentialKind]] = {
    "social": "social",
    "desktop": "social",
    "google": "social",
    "github": "social",
    "builder_id": "builder_id",
    "builderid": "builder_id",
    "idc": "idc",
    "iam": "idc",
    "external_idp": "external_idp",
    "api_key": "api_key",
    "apikey": "api_key",
}
MAX_QUOTED: Final = 80
"""How many characters of an unreadable value are shown."""

NESTS: Final = ("metadata", "attributes")
"""The objects in a document that may hold the members of its credential."""


def read_time(value: object) -> datetime | None:
    """Read a date of any known form; None if the value is empty or not a date."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return time_since_epoch(value)
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return time_since_epoch(float(text))
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None  # Try it: the service knows when a token or a client ends.


def format_time(moment: datetime | None) -> str:
    """Write a date in the form that all readers of these stores accept: UTC, milliseconds, `Z`."""
    if moment is None:
        return ""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_object(text: str | bytes) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        ValueError: The text is not JSON, or not an object.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return cast("dict[str, object]", document)


def text_of(document: Mapping[str, object], name: str) -> str:
    """Return a text member, in camel or snake case, nested or not; "" if it is missing."""
    value = member_of(document, name)
    return value.strip() if isinstance(value, str) else ""


def member_of(document: Mapping[str, object], name: str) -> object:
    """Return a member, in camel or snake case, nested or not; None if it is missing."""
    for level in _levels(document):
        for spelling in (name, camel(name)):
            if level.get(spelling) not in (None, ""):
                return level[spelling]
    return None


def _levels(document: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the objects that may hold the members of a credential, the innermost first."""
    levels = (*map(document.get, NESTS), document)
    return [cast("dict[str, object]", level) for level in levels if isinstance(level, dict)]


def camel(name: str) -> str:
    """Spell a snake case name in camel case."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def registration_name(document: Mapping[str, object]) -> str:
    """Return the file name of the registration that a document refers to; "" for none.

    Anybody may have written the document, so only a valid hash may become a file name.
    """
    named = text_of(document, "client_id_hash")
    return f"{named}.json" if re.fullmatch(r"[0-9a-f]{40}", named) else ""


def read_registration(
    document: Mapping[str, object], *, is_all: bool = False
) -> ClientRegistration | None:
    """Read a client registration; None if its id or its secret is missing.

    `expiresAt` is the client's end if the document holds nothing else; otherwise the token's.
    """
    client_id, secret = text_of(document, "client_id"), text_of(document, "client_secret")
    if not client_id or not secret:
        return None
    names = ["client_secret_expires_at", "registration_expires_at", "client_expires_at"]
    ends = [member_of(document, name) for name in (*names, *(["expires_at"] if is_all else []))]
    return ClientRegistration(
        client_id=client_id,
        client_secret=secret,
        expires_at=read_time(next((end for end in ends if end is not None), None)),
        region=text_of(document, "region"),
    )


def read_credential(
    document: Mapping[str, object],
    where: Credential,
    registration: ClientRegistration | None = None,
) -> Credential | None:
    """Read a credential; None if the document has neither of the two tokens.

    `where` is an empty credential that says where the document comes from. The registration may
    have a file of its own.

    Raises:
        ValueError: A token or a profile has characters that no HTTP header may contain.
    """
    access = _header_text(document, "access_token") or _header_text(document, "api_key")
    refresh = text_of(document, "refresh_token")
    if not access and not refresh:
        return None
    client = read_registration(document) or registration
    kind = kind_of(document, has_client=client is not None)
    problem = ""
    if kind == "external_idp":
        client = ClientRegistration(client_id=text_of(document, "client_id"))
        problem = "" if client.client_id else "its client id is missing"
    elif kind in ("idc", "builder_id") and client is None:
        problem = "its client registration is missing or cannot be read"
    ends = member_of(document, "expires_at")
    expires_at = read_time(ends)
    scopes = member_of(document, "scopes")
    if isinstance(scopes, str):
        scopes = scopes.split()
    listed = cast("list[object]", scopes) if isinstance(scopes, list) else []
    return replace(
        where,
        kind=kind,
        access_token=access,
        refresh_token=refresh,
        expires_at=expires_at or jwt_expiry(access),
        unreadable_end="" if expires_at or ends is None else str(ends)[:MAX_QUOTED],
        profile_arn=_header_text(document, "profile_arn"),
        region=text_of(document, "region") or (client.region if client else ""),
        client=None if kind == "social" else client,
        token_endpoint=text_of(document, "token_endpoint"),
        issuer_url=text_of(document, "issuer_url"),
        scopes=tuple(scope for scope in listed if isinstance(scope, str)),
        start_url=text_of(document, "start_url"),
        preferred_endpoint=text_of(document, "preferred_endpoint"),
        problem=problem,
    )


def _header_text(document: Mapping[str, object], name: str) -> str:
    text = text_of(document, name)
    if text.isascii() and text.isprintable():
        return text
    raise ValueError(f"its {name.replace('_', ' ')} is not printable ASCII text")


def kind_of(document: Mapping[str, object], *, has_client: bool) -> CredentialKind:
    """Return the kind of login in a document.

    The document's own `authMethod` decides; else a token endpoint, else a client registration;
    else the login is social. Builder ID also has a client registration, so a registration alone
    does not mean that the login is an organisation's.
    """
    if text_of(document, "api_key") or text_of(document, "access_token").startswith(API_KEY_PREFIX):
        return "api_key"
    hashed = text_of(document, "client_id_hash")
    kind = _METHODS.get(text_of(document, "auth_method").lower().replace("-", "_"))
    if kind is None and text_of(document, "token_endpoint"):
        return "external_idp"
    if kind is None and not has_client and not hashed:
        return "social"
    if kind not in (None, "idc"):
        return kind
    if provider := re.sub("[_-]", "", text_of(document, "provider").lower()):
        is_builder_id = provider in ("builderid", "awsbuilderid")
    elif start_url := text_of(document, "start_url"):
        is_builder_id = start_url.rstrip("/#") == BUILDER_ID_START_URL
    else:
        is_builder_id = hashed == BUILDER_ID_CLIENT_HASH
    return "builder_id" if is_builder_id else "idc"


def decode_refresh_token(text: str, *, source: str, region: str = "") -> Credential:
    """Read a refresh token: bare, or with everything that it needs, as other tools write it.

    ::

        token                                          social
        token|desktop                                  social
        token|client id|client secret|idc              AWS SSO OIDC
        token|client id|token endpoint|external-idp    an organisation's own sign-in

    The text is split from the right, so a bar inside the token does no harm.
    """
    bare = Credential(kind="social", refresh_token=text, region=region, source=source)
    rest, bar, method = text.rpartition("|")
    kind = _METHODS.get(method.strip().lower().replace("-", "_"))
    if bar and kind == "social":
        return replace(bare, refresh_token=rest)
    parts = rest.rsplit("|", 2)
    if len(parts) != 3 or kind in (None, "api_key"):
        return bare
    token, client_id, last = parts
    endpoint, secret = (last, "") if kind == "external_idp" else ("", last)
    client = ClientRegistration(client_id=client_id, client_secret=secret)
    return replace(bare, kind=kind, refresh_token=token, client=client, token_endpoint=endpoint)


def merge_tokens(document: Mapping[str, object], renewed: Credential) -> dict[str, object]:
    """Return the document with the renewed tokens, under the names that it uses for them.

    The end of the token keeps its form: text, or a number of seconds or milliseconds. All other
    members stay as they are, because they belong to another program.
    """
    before, moment = member_of(document, "expires_at"), renewed.expires_at
    ends: object = format_time(moment) if moment else before
    if moment and isinstance(before, int | float) and not isinstance(before, bool):
        ends = int(moment.timestamp() * (1000 if before > MILLISECONDS_FROM else 1))
    changes: dict[str, object] = {
        "access_token": renewed.access_token,
        "refresh_token": renewed.refresh_token,
        "expires_at": ends,
    }
    if renewed.kind == "social" and renewed.profile_arn:
        changes["profile_arn"] = renewed.profile_arn
    copied = {nest: copy(document[nest]) for nest in NESTS if nest in document}
    result = {**document, **copied}
    is_snake = any("_" in member for member in document)
    for name, value in changes.items():
        spellings = (name, camel(name))
        found = ((level, one) for level in _levels(result) for one in spellings if one in level)
        level, spelling = next(found, (result, spellings[0 if is_snake else 1]))
        level[spelling] = value
    return result


def own_document(credential: Credential) -> dict[str, object]:
    """Write a login as our own store saves it; `read_credential` reads it. Members may be empty."""
    client = credential.client or ClientRegistration(client_id="")
    return {
        "authMethod": credential.kind,
        "accessToken": credential.access_token,
        "refreshToken": credential.refresh_token,
        "expiresAt": format_time(credential.expires_at),
        "profileArn": credential.profile_arn,
        "region": credential.region,
        "startUrl": credential.start_url,
        "clientId": client.client_id,
        "clientSecret": client.client_secret,
        "clientExpiresAt": format_time(client.expires_at),
        "tokenEndpoint": credential.token_endpoint,
        "issuerUrl": credential.issuer_url,
        "scopes": list(credential.scopes),
    }
