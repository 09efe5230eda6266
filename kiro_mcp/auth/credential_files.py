"""A credential as JSON, in every spelling that is around, into a `Credential`. Pure.

One reader serves the Kiro IDE's file, the AWS SSO cache, kiro-cli's rows, files of other gateways
and our own store: keys in camel or snake case, at the top or under `metadata` or `attributes`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from kiro_mcp.auth.timestamps import parse_time
from kiro_mcp.auth.tokens import (
    BUILDER_ID_START_URL,
    ClientRegistration,
    Credential,
    CredentialKind,
    Origin,
    jwt_expiry,
)

BUILDER_ID_CLIENT_HASH: Final = "e909a0580879b06ece1202964fbe9dda95ea4ce3"
"""The name of the registration file of Builder ID's start URL: SHA-1 of `{"startUrl":"…"}`."""

API_KEY_PREFIX: Final = "ksk_"
"""What every API key begins with, and no access token."""

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
"""How much is shown of a value that cannot be read."""

NESTS: Final = ("metadata", "attributes")
"""The members that may hold a credential's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a credential is: what it becomes when its document is read."""

    source: str
    origin: Origin
    path: str = ""
    key: str = ""
    is_explicit: bool = False


def parse_object(text: str | bytes) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        ValueError: It is not one.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return cast("dict[str, object]", document)


def registration_name(document: Mapping[str, object]) -> str:
    """Return the file name of the registration that a document points at; "" for none.

    The hash is what a stranger may have written, so nothing but a hash may become a path.
    """
    named = text_of(document, "client_id_hash")
    return f"{named}.json" if re.fullmatch(r"[0-9a-f]{40}", named) else ""


def text_of(document: Mapping[str, object], name: str) -> str:
    """Return a text member, in camel or snake case, nested or not; "" where there is none."""
    value = member_of(document, name)
    return value.strip() if isinstance(value, str) else ""


def member_of(document: Mapping[str, object], name: str) -> object:
    """Return a member, in camel or snake case, nested or not; None where there is none."""
    nests = [document.get(nest) for nest in NESTS]
    for level in (*nests, document):
        if isinstance(level, dict):
            members = cast("dict[str, object]", level)
            for spelling in (name, camel(name)):
                if members.get(spelling) not in (None, ""):
                    return members[spelling]
    return None


def camel(name: str) -> str:
    """Spell a snake case name in camel case."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def read_registration(document: Mapping[str, object]) -> ClientRegistration | None:
    """Read the client that a document holds; None where it holds no whole one."""
    client_id, secret = text_of(document, "client_id"), text_of(document, "client_secret")
    if not client_id or not secret:
        return None
    ends = next(
        (
            value
            for name in ("client_secret_expires_at", "registration_expires_at", "client_expires_at")
            if (value := member_of(document, name)) is not None
        ),
        None,
    )
    return ClientRegistration(
        client_id=client_id,
        client_secret=secret,
        expires_at=_time_or_nothing(ends),
        region=text_of(document, "region"),
    )


def read_registration_file(document: Mapping[str, object]) -> ClientRegistration | None:
    """Read a registration that has a file, or a row, to itself: there `expiresAt` is its own."""
    ends = member_of(document, "client_secret_expires_at") or member_of(document, "expires_at")
    return read_registration({**document, "client_secret_expires_at": ends})


def read_credential(
    document: Mapping[str, object],
    place: Place,
    registration: ClientRegistration | None = None,
) -> Credential | None:
    """Read a credential; None where the document holds neither of the two tokens.

    Args:
        document: The JSON object.
        place: Where it is.
        registration: Its client, where that has a file of its own.

    Raises:
        ValueError: A token or a profile is in it that no request can carry.
    """
    access = _header_text(document, "access_token") or _header_text(document, "api_key")
    refresh = text_of(document, "refresh_token")
    if not access and not refresh:
        return None
    client = read_registration(document) or registration
    kind = kind_of(document, has_client=client is not None)
    if kind == "external_idp":
        client = ClientRegistration(client_id=text_of(document, "client_id"))
    ends = member_of(document, "expires_at")
    expires_at = _time_or_nothing(ends)
    is_unreadable = expires_at is None and ends not in (None, "")
    return Credential(
        kind=kind,
        access_token=access,
        refresh_token=refresh,
        expires_at=expires_at or jwt_expiry(access),
        unreadable_end=str(ends)[:MAX_QUOTED] if is_unreadable else "",
        profile_arn=_header_text(document, "profile_arn"),
        region=text_of(document, "region") or (client.region if client else ""),
        client=None if kind == "social" else client,
        token_endpoint=text_of(document, "token_endpoint"),
        issuer_url=text_of(document, "issuer_url"),
        scopes=_scopes(member_of(document, "scopes")),
        start_url=text_of(document, "start_url"),
        preferred_endpoint=text_of(document, "preferred_endpoint"),
        problem=_problem(kind, client),
        source=place.source,
        origin=place.origin,
        path=place.path,
        key=place.key,
        is_explicit=place.is_explicit,
    )


def _time_or_nothing(value: object) -> datetime | None:
    try:
        return parse_time(value)
    except ValueError:
        return None  # The service knows when a token or a client ends; it is tried.


def _header_text(document: Mapping[str, object], name: str) -> str:
    text = text_of(document, name)
    if text.isascii() and text.isprintable():
        return text
    raise ValueError(f"its {name.replace('_', ' ')} is not printable ASCII text")


def kind_of(document: Mapping[str, object], *, has_client: bool) -> CredentialKind:
    """Tell what kind of login a document is of.

    What it says of itself wins, then a token endpoint, then a client; else it is social. Builder
    ID has a client too, so a client alone does not make an organisation's login.
    """
    if text_of(document, "api_key") or text_of(document, "access_token").startswith(API_KEY_PREFIX):
        return "api_key"
    said = text_of(document, "auth_method").lower().replace("-", "_")
    kind = _METHODS.get(said)
    if kind is None and text_of(document, "token_endpoint"):
        kind = "external_idp"
    if kind is None:
        kind = "idc" if has_client or text_of(document, "client_id_hash") else "social"
    return "builder_id" if kind == "idc" and _is_builder_id(document) else kind


def _is_builder_id(document: Mapping[str, object]) -> bool:
    provider = text_of(document, "provider").lower().replace("_", "").replace("-", "")
    if provider:
        return provider in ("builderid", "awsbuilderid")
    start_url = text_of(document, "start_url")
    if start_url:
        return start_url.rstrip("/#") == BUILDER_ID_START_URL
    return text_of(document, "client_id_hash") == BUILDER_ID_CLIENT_HASH


def _scopes(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list):
        return tuple(item for item in cast("list[object]", value) if isinstance(item, str))
    return ()


def _problem(kind: CredentialKind, client: ClientRegistration | None) -> str:
    if kind in ("idc", "builder_id") and client is None:
        return "its client registration is missing or cannot be read"
    if kind == "external_idp" and not (client and client.client_id):
        return "its client id is missing"
    return ""
