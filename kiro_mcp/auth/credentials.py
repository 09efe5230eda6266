"""Credentials as values: their kinds, what a request needs from each, and which is used. Pure."""

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

from kiro_mcp.chat import AccessToken, TokenType
from kiro_mcp.client.endpoints import BUILDER_ID_PROFILE_ARN
from kiro_mcp.errors import KiroError, SignInRequired
from kiro_mcp.redaction import remember_secret
from kiro_mcp.regions import DEFAULT_REGION, region_of
from kiro_mcp.wire.json_values import number_member, parse_object

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


def jwt_expiry(token: str) -> datetime | None:
    """Return when a JWT expires (RFC 7519); None for other tokens, or if the JWT does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        ends = number_member(parse_object(payload), "exp")
        return None if ends is None else datetime.fromtimestamp(ends, UTC)
    except (ValueError, OverflowError, OSError):
        return None
