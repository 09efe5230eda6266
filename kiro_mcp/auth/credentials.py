"""Credentials as values: which kinds there are, and what a request needs from each. Pure."""

import base64
import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, cast

from kiro_mcp.chat import AccessToken, TokenType
from kiro_mcp.client.endpoints import BUILDER_ID_PROFILE_ARN
from kiro_mcp.redaction import remember_secret
from kiro_mcp.regions import region_of

DEFAULT_REGION: Final = "us-east-1"
"""Where the service's data plane is, unless the profile's ARN or a setting says otherwise."""

BUILDER_ID_START_URL: Final = "https://view.awsapps.com/start"
"""Where every AWS Builder ID login starts; organisations have an address of their own."""

SOCIAL_PROFILE_ARN: Final = "arn:aws:codewhisperer:us-east-1:699475941385:profile/EHGA3GRVQMUK"
"""Observed (2026-03): the profile in the answer to every Google and GitHub login."""

CredentialKind: TypeAlias = Literal[
    "api_key", "access_token", "social", "builder_id", "idc", "external_idp"
]
"""`access_token` is a bare token, of whatever identity."""

Origin: TypeAlias = Literal["environment", "own", "file", "database", "caller"]
"""What holds it: `file` and `database` belong to another program, `own` to us. A `caller` over
HTTP sends its own with each request."""

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

    def has_expired(self, now: datetime) -> bool:
        """Whether nothing can be refreshed with it any more."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A way to be let in, and where it came from."""

    kind: CredentialKind
    access_token: str = field(default="", repr=False)
    """The bearer, or the API key; "" where only a refresh token is known yet."""
    refresh_token: str = field(default="", repr=False)
    held_refresh_token: str = field(default="", repr=False)
    """The refresh token that its source still holds; "" unless the one above is newer."""
    expires_at: datetime | None = None
    """When the access token ends, aware UTC; None where nothing says."""
    unreadable_end: str = ""
    """The source's own text for that time if it cannot be read as a date."""
    profile_arn: str = ""
    region: str = ""
    """Where the login was made: the region of its refresh, never that of the service."""
    client: ClientRegistration | None = None
    token_endpoint: str = ""
    issuer_url: str = ""
    scopes: tuple[str, ...] = ()
    start_url: str = ""
    preferred_endpoint: str = ""
    """The endpoint that its store says to try first, in the store's words; "" for none."""
    problem: str = ""
    """Why it cannot be refreshed, as the end of a sentence; "" where it can be tried."""

    source: str
    """Where it was found, for people: the variable's or the file's name."""
    origin: Origin = "environment"
    path: str = ""
    """The file or database that holds it."""
    key: str = ""
    """Its key in there: the row, or the entry of our own store."""
    is_explicit: bool = True
    """Whether the user named it for this run, rather than it being found on the machine."""

    def __post_init__(self) -> None:
        remember_secret(self.access_token)
        remember_secret(self.refresh_token)

    @property
    def is_borrowed(self) -> bool:
        """Whether it belongs to another program, which a refresh by us would log out."""
        return self.origin in ("file", "database")

    @property
    def identity(self) -> str:
        """What tells it from every other credential, however often it is renewed; no secret."""
        return "\n".join((self.origin, self.path, self.key))

    def is_usable(self, now: datetime) -> bool:
        """Whether its access token can be sent as it is."""
        return bool(self.access_token) and (self.expires_at is None or now < self.expires_at)

    def can_refresh(self) -> bool:
        """Whether it has all that a refresh needs."""
        return bool(self.refresh_token) and not self.problem and self.kind != "api_key"


def known_profile(credential: Credential, chosen_arn: str = "") -> str:
    """Return the profile to bill as far as nobody need be asked, "" otherwise.

    The user's choice wins, then what the login came with, then what all users of a kind share.
    An API key goes without: the service knows its own, and refuses another's.
    """
    if credential.kind == "api_key":
        return ""
    if credential.kind == "builder_id":
        shared = BUILDER_ID_PROFILE_ARN
    else:
        shared = SOCIAL_PROFILE_ARN if credential.kind == "social" else ""
    return chosen_arn or credential.profile_arn or shared


def with_profile(credential: Credential, profile_arn: str) -> Credential:
    """Return the credential with the profile that it is now known to have."""
    return replace(credential, profile_arn=profile_arn)


def as_access_token(
    credential: Credential,
    *,
    profile_arn: str = "",
    api_region: str = "",
    token_type: TokenType = "",
) -> AccessToken:
    """Derive what a request carries.

    The region is the setting's, else the profile's, else the default; never the login's.

    Args:
        credential: The credential.
        profile_arn: The profile to bill.
        api_region: The region of the service that the user chose.
        token_type: What its calls say that it is, where that is not usual for its kind.
    """
    return AccessToken(
        value=credential.access_token,
        token_type=token_type or _TOKEN_TYPES.get(credential.kind, ""),
        profile_arn="" if credential.kind == "api_key" else profile_arn,
        region=api_region or region_of(profile_arn) or DEFAULT_REGION,
        is_explicit=credential.is_explicit,
        preferred_endpoint=credential.preferred_endpoint,
        owner=_owner(credential, profile_arn),
    )


def _owner(credential: Credential, profile_arn: str) -> str:
    """Return a digest of what of a credential stays the same when it is renewed.

    A variable holds the same secret throughout. A file's secrets change, so it is known by where
    it lies, by the registration that signed in and by the profile.
    """
    if credential.origin == "environment":
        held = credential.held_refresh_token or credential.refresh_token
        members = (held or credential.access_token,)
    else:
        client_id = credential.client.client_id if credential.client else ""
        key = credential.access_token if credential.kind == "api_key" else ""
        members = (credential.identity, client_id, profile_arn, key)
    return hashlib.sha256("\n".join(members).encode()).hexdigest()


def jwt_expiry(token: str) -> datetime | None:
    """Return when a JWT ends; None for any other token, or a JWT that does not say (RFC 7519)."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        members = cast("dict[str, object]", payload) if isinstance(payload, dict) else {}
        ends = members.get("exp")
        if isinstance(ends, bool) or not isinstance(ends, int | float):
            return None
        return datetime.fromtimestamp(ends, UTC)
    except (ValueError, OverflowError, OSError, RecursionError):
        return None
