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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, cast

from kiro_mcp.auth.credentials import (
    BUILDER_ID_START_URL,
    ClientRegistration,
    Credential,
    CredentialKind,
    Origin,
    jwt_expiry,
)

MILLISECONDS_FROM: Final = 100_000_000_000
"""A larger number counts milliseconds: in seconds it would be in the year 5138."""


def parse_time(value: object) -> datetime | None:
    """Read a date of any known form; None if the value is empty.

    Raises:
        ValueError: The value is not a date.
    """
    if value is None or value == "":
        return None
    try:
        return _parse(value)
    except (OverflowError, OSError) as error:
        raise ValueError("not a date") from error


def _parse(value: object) -> datetime:
    if isinstance(value, bool):
        raise ValueError("not a date")
    if isinstance(value, int | float):
        return _from_epoch(float(value))
    if not isinstance(value, str):
        raise ValueError("not a date")
    text = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _from_epoch(float(text))
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _from_epoch(number: float) -> datetime:
    return datetime.fromtimestamp(number / 1000 if number > MILLISECONDS_FROM else number, UTC)


def format_time(moment: datetime) -> str:
    """Write a date in the form that all readers of these stores accept: UTC, milliseconds, `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSource:
    """Where a document with a credential comes from. This becomes part of the credential."""

    name: str
    """For people: the name of the variable or file."""
    origin: Origin
    path: str = ""
    key: str = ""
    is_explicit: bool = False


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


def registration_name(document: Mapping[str, object]) -> str:
    """Return the file name of the registration that a document refers to; "" for none.

    Anybody may have written the document, so only a valid hash may become a file name.
    """
    named = text_of(document, "client_id_hash")
    return f"{named}.json" if re.fullmatch(r"[0-9a-f]{40}", named) else ""


def text_of(document: Mapping[str, object], name: str) -> str:
    """Return a text member, in camel or snake case, nested or not; "" if it is missing."""
    value = member_of(document, name)
    return value.strip() if isinstance(value, str) else ""


def member_of(document: Mapping[str, object], name: str) -> object:
    """Return a member, in camel or snake case, nested or not; None if it is missing."""
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
    """Read the client registration in a document; None if its id or its secret is missing."""
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
    """Read a registration from a file or row of its own, in which `expiresAt` means its end."""
    ends = member_of(document, "client_secret_expires_at") or member_of(document, "expires_at")
    return read_registration({**document, "client_secret_expires_at": ends})


def read_credential(
    document: Mapping[str, object],
    where: CredentialSource,
    registration: ClientRegistration | None = None,
) -> Credential | None:
    """Read a credential; None if the document has neither of the two tokens.

    Args:
        document: The JSON object.
        where: Where it comes from.
        registration: Its client registration, if that has a file of its own.

    Raises:
        ValueError: A token or a profile has characters that no HTTP header may contain.
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
        source=where.name,
        origin=where.origin,
        path=where.path,
        key=where.key,
        is_explicit=where.is_explicit,
    )


def _time_or_nothing(value: object) -> datetime | None:
    try:
        return parse_time(value)
    except ValueError:
        return None  # Try it: the service knows when a token or a client ends.


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


_SOCIAL: Final = ("desktop", "social", "google", "github")
_OIDC: Final = ("idc", "builder-id", "builder_id", "iam")
_EXTERNAL: Final = ("external-idp", "external_idp")


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
    method = method.strip().lower()
    if bar and method in _SOCIAL:
        return replace(bare, refresh_token=rest)
    parts = rest.rsplit("|", 2)
    if len(parts) != 3 or method not in (*_OIDC, *_EXTERNAL):
        return bare
    token, client_id, last = parts
    if method in _EXTERNAL:
        client = ClientRegistration(client_id=client_id)
        return replace(
            bare, kind="external_idp", refresh_token=token, client=client, token_endpoint=last
        )
    client = ClientRegistration(client_id=client_id, client_secret=last)
    kind = "builder_id" if method.startswith("builder") else "idc"
    return replace(bare, kind=kind, refresh_token=token, client=client)


def merge_tokens(document: Mapping[str, object], renewed: Credential) -> dict[str, object]:
    """Return the document with the renewed tokens, under the names that it uses for them.

    All other members stay as they are, because they belong to another program.
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
    """Write a date in the document's form: text, or a number of seconds or milliseconds."""
    before = member_of(document, "expires_at")
    if moment is None:
        return before
    if isinstance(before, int | float) and not isinstance(before, bool):
        unit = 1000 if before > MILLISECONDS_FROM else 1
        return int(moment.timestamp() * unit)
    return format_time(moment)


def own_document(credential: Credential) -> dict[str, object]:
    """Write a login as our own store saves it; `read_credential` reads it."""
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
