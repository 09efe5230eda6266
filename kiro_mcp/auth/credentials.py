"""Credentials: as values, and as the JSON and text in which programs store them. Pure.

One reader serves the Kiro IDE's file, the AWS SSO cache, kiro-cli's rows, files of other gateways
and our own store. Names are in camel or snake case, at the top level or under `metadata` or
`attributes`. A renewed login is written into the document that it came from; only the tokens and
their end change.

A date is ISO 8601 with 0 to 9 digits after the second, and with `Z`, an offset or neither; or it
counts seconds or milliseconds since the epoch, as a number or as text.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias, cast

from kiro_mcp.chat import AccessToken, TokenType
from kiro_mcp.client.endpoints import BUILDER_ID_PROFILE_ARN
from kiro_mcp.client.management import MILLISECONDS_FROM, time_since_epoch
from kiro_mcp.errors import KiroError, SignInRequired
from kiro_mcp.redaction import remember_secret
from kiro_mcp.regions import DEFAULT_REGION, region_of

BUILDER_ID_START_URL: Final = "https://view.awsapps.com/start"
"""The start URL of all AWS Builder ID logins. Each organisation has its own start URL."""

SOCIAL_PROFILE_ARN: Final = "arn:aws:codewhisperer:us-east-1:699475941385:profile/EHGA3GRVQMUK"
"""Observed (2026-03): the service returns this profile for all Google and GitHub logins."""

CredentialKind: TypeAlias = Literal[
    "api_key", "access_token", "social", "builder_id", "idc", "external_idp"
]
"""`access_token` is a bare token of an unknown kind."""

Origin: TypeAlias = Literal["environment", "own", "file", "database", "caller"]
"""Where a credential comes from. A `file` or `database` belongs to another program; `own` is
kiro-mcp's own store. A `caller` over HTTP sends a key with each request."""

Stamp: TypeAlias = tuple[int, int, int] | None
"""Time, size and inode of a file, to notice that it has changed; None if it does not exist."""

NOT_THERE: Final = "not there"

_SHARED_PROFILES: Final[dict[CredentialKind, str]] = {
    "builder_id": BUILDER_ID_PROFILE_ARN,
    "social": SOCIAL_PROFILE_ARN,
}
_TOKEN_TYPES: Final[dict[CredentialKind, TokenType]] = {
    "api_key": "API_KEY",
    "external_idp": "EXTERNAL_IDP",
}

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
class ClientRegistration:
    """The client that a refresh token is bound to."""

    client_id: str
    client_secret: str = field(default="", repr=False)
    expires_at: datetime | None = None
    region: str = ""

    def __post_init__(self) -> None:
        remember_secret(self.client_secret)

    @property
    def members(self) -> dict[str, str]:
        """The members of a request that identify the client to AWS."""
        return {"clientId": self.client_id, "clientSecret": self.client_secret}

    def has_expired(self, now: datetime) -> bool:
        """Whether the registration has ended, so that its refresh tokens no longer work."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A login or an API key, and where it came from."""

    kind: CredentialKind = "access_token"
    access_token: str = field(default="", repr=False)
    """The bearer, or the API key; "" if only a refresh token is known so far."""
    refresh_token: str = field(default="", repr=False)
    held_refresh_token: str = field(default="", repr=False)
    """The older refresh token that the source still holds; "" if it holds `refresh_token`."""
    expires_at: datetime | None = None
    """When the access token ends, aware UTC; None if unknown."""
    unreadable_end: str = ""
    """The source's text for that time, if the text is not a date that can be read."""
    profile_arn: str = ""
    region: str = ""
    """Where the login was made. Its refresh uses this region; the service may have another."""
    client: ClientRegistration | None = None
    token_endpoint: str = ""
    issuer_url: str = ""
    scopes: tuple[str, ...] = ()
    start_url: str = ""
    preferred_endpoint: str = ""
    """The endpoint that its store prefers, in the store's words; "" for none."""
    problem: str = ""
    """Why it cannot be refreshed, as the end of a sentence; "" if a refresh may work."""

    source: str
    """Where it was found, for people: the name of the variable or file."""
    origin: Origin = "environment"
    path: str = ""
    """The file or database that holds it."""
    key: str = ""
    """The row in that database, or the entry in our own store."""
    is_explicit: bool = True
    """Whether the user named it for this run. If not, it was found on the machine."""

    def __post_init__(self) -> None:
        remember_secret(self.access_token)
        remember_secret(self.refresh_token)

    @property
    def is_borrowed(self) -> bool:
        """Whether it belongs to another program. A refresh by us could sign that program out."""
        return self.origin in ("file", "database")

    @property
    def identity(self) -> str:
        """Identifies the credential, also after it was renewed. Contains no secret."""
        return "\n".join((self.origin, self.path, self.key))

    def is_usable(self, now: datetime, *, for_seconds: float = 0.0) -> bool:
        """Whether it has an access token that will not expire within this time."""
        until = now + timedelta(seconds=for_seconds)
        return bool(self.access_token) and (self.expires_at is None or until < self.expires_at)

    def can_refresh(self) -> bool:
        """Whether it has everything that a refresh needs."""
        return bool(self.refresh_token) and not self.problem and self.kind != "api_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the search found at one source."""

    source: str
    why: str = NOT_THERE
    credential: Credential | None = None
    problem: KiroError | None = None
    """Why no other source may be used instead."""
    is_used: bool = False

    def __str__(self) -> str:
        return f"{self.source}: {'used, ' if self.is_used else ''}{self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Which credential is used, and why."""

    credential: Credential | None
    findings: tuple[Finding, ...]
    watched: tuple[tuple[str, Stamp], ...]
    """The files that decided, each with its stamp at the time of the search."""
    problem: KiroError | None = None
    """Why the source that the user named cannot be used."""

    def require(self) -> Credential:
        """Return the credential.

        Raises:
            KiroError: No credential was found, or the source that the user named cannot be used.
        """
        if self.problem:
            raise self.problem
        if self.credential is None:
            raise SignInRequired(
                "No Kiro credential was found.",
                next_step="Call the tool `login` (or run `kiro-mcp login`), or set KIRO_API_KEY"
                " (made at https://app.kiro.dev) where this server is configured.",
            )
        return self.credential


def known_profile(credential: Credential, chosen_arn: str = "") -> str:
    """Return the profile to bill if it is known without asking the service; "" otherwise.

    The user's choice wins, then the login's own profile, then the one that all logins of the kind
    share. An API key has none here: the service knows the key's profile and refuses any other.
    """
    if credential.kind == "api_key":
        return ""
    return chosen_arn or credential.profile_arn or _SHARED_PROFILES.get(credential.kind, "")


def as_access_token(
    credential: Credential,
    *,
    profile_arn: str = "",
    api_region: str = "",
    token_type: TokenType = "",
) -> AccessToken:
    """Return the token, the profile and the region that requests use.

    The region is the setting's, else the profile's, else the default; never the login's.
    """
    # The owner is a digest of the parts of a credential that a renewal does not change. A variable
    # keeps its secret. The secrets in a file change, so the digest uses the file's path, the client
    # registration and the profile instead.
    if credential.origin == "environment":
        held = credential.held_refresh_token or credential.refresh_token
        lasting = (held or credential.access_token,)
    else:
        client_id = credential.client.client_id if credential.client else ""
        key = credential.access_token if credential.kind == "api_key" else ""
        lasting = (credential.identity, client_id, profile_arn, key)
    return AccessToken(
        value=credential.access_token,
        token_type=token_type or _TOKEN_TYPES.get(credential.kind, ""),
        profile_arn="" if credential.kind == "api_key" else profile_arn,
        region=api_region or region_of(profile_arn) or DEFAULT_REGION,
        is_explicit=credential.is_explicit,
        preferred_endpoint=credential.preferred_endpoint,
        owner=hashlib.sha256("\n".join(lasting).encode()).hexdigest(),
    )


# --- in documents --------------------------------------------------------------------------


def jwt_expiry(token: str) -> datetime | None:
    """Return when a JWT expires (RFC 7519); None for other tokens, or if the JWT does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = parse_object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        ends = payload.get("exp")
        if isinstance(ends, bool) or not isinstance(ends, int | float):
            return None
        return datetime.fromtimestamp(ends, UTC)
    except (ValueError, OverflowError, OSError):
        return None


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
