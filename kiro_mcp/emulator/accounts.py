"""The accounts of the emulator: API keys, tokens, device logins and refresh tokens that rotate.

Tokens do not expire by the clock: a test calls `expire_access_tokens`. Source of truth: AWS SSO
OIDC, the Kiro desktop sign-in service, and the observed behaviour of both::

    device login ──► access token + refresh token ──refresh──► both new, both old ones void
"""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, TypeVar

Identity: TypeAlias = Literal["api_key", "builder_id", "idc", "social"]
"""The kind of account that a bearer token belongs to."""
DeviceOutcome: TypeAlias = Literal["granted", "access_denied", "expired_token"]
PollError: TypeAlias = Literal[
    "authorization_pending", "slow_down", "access_denied", "expired_token", "invalid_grant"
]

MAX_ENTRIES: Final = 1_000
"""How many clients, logins and tokens are stored; the oldest are removed first."""

_Value = TypeVar("_Value")


def _invented(prefix: str, name: str) -> str:
    """A token with the shape and about the length of the service's own."""
    return f"{prefix}Emulated{name:A<120}:emulated-signature"


EMULATOR_PROFILE_ARN: Final = "arn:aws:codewhisperer:us-east-1:111122223333:profile/EMULATOR"
"""The profile of all identities except those of Builder ID."""

BUILDER_ID_PROFILE_ARN: Final = "arn:aws:codewhisperer:us-east-1:638616132270:profile/AAAACCCCXXXX"
"""The profile that all Builder ID users share, as clients send it."""

SOCIAL_PROFILE_ARN: Final = "arn:aws:codewhisperer:us-east-1:699475941385:profile/EHGA3GRVQMUK"
"""The profile that Google and GitHub users share, as clients send it."""

BUILDER_ID_START_URL: Final = "https://view.awsapps.com/start"
"""The start URL of Builder ID logins; logins with another one belong to Identity Center."""

EMULATOR_API_KEY: Final = f"ksk_emulated{'0' * 32}"
"""Accepted with the header `TokenType: API_KEY`; its calls may omit the profile."""

EMULATOR_ACCESS_TOKEN: Final = _invented("aoa", "IdentityCenter")
"""Accepted without `TokenType`; its calls must name `EMULATOR_PROFILE_ARN`."""

EMULATOR_REFRESH_TOKEN: Final = _invented("aor", "IdentityCenter")
"""Renews `EMULATOR_ACCESS_TOKEN` at `/token`, for the client below."""

EMULATOR_CLIENT_ID: Final = "emulated-client"
EMULATOR_CLIENT_SECRET: Final = f"{EMULATOR_CLIENT_ID}-secret"

EMULATOR_SOCIAL_ACCESS_TOKEN: Final = _invented("aoa", "Social")
"""As `EMULATOR_ACCESS_TOKEN`, from a Google or GitHub login."""

EMULATOR_SOCIAL_REFRESH_TOKEN: Final = _invented("aor", "Social")
"""Renews `EMULATOR_SOCIAL_ACCESS_TOKEN` at `/refreshToken`."""

EMULATOR_BUILDER_ID_ACCESS_TOKEN: Final = _invented("aoa", "BuilderId")
"""As `EMULATOR_ACCESS_TOKEN`, but its calls must name `BUILDER_ID_PROFILE_ARN`."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The result of a login or a refresh."""

    identity: Identity
    access_token: str
    refresh_token: str
    client_id: str
    """The client that the refresh token is bound to; "" at the desktop service."""


@dataclass(slots=True)
class DeviceLogin:
    """A device login that the user has to confirm."""

    device_code: str
    user_code: str
    identity: Identity
    client_id: str
    polls: int = 0


@dataclass(slots=True, kw_only=True)
class Accounts:
    """The tokens of one emulator, and the behaviour of its logins."""

    pending_polls: int = 2
    """How many polls of a device login are answered with `authorization_pending`."""
    slow_downs: int = 0
    """How many polls before those are answered with `slow_down`."""
    device_outcome: DeviceOutcome = "granted"
    """How a device login ends."""
    poll_interval_seconds: int = 1
    device_login_seconds: int = 600
    access_token_seconds: int = 3600
    """The lifetime in the answers; nothing expires by the clock."""
    profile_arns: tuple[str, ...] = (EMULATOR_PROFILE_ARN,)
    """The profiles of an Identity Center user; the first is also the one of other users."""
    inactive_profile_arns: tuple[str, ...] = ()
    """The profiles that are listed as inactive and refused in calls."""
    identity_center_token_type: Literal["", "SSO_OIDC"] = ""
    """The header `TokenType` that calls of an Identity Center user must have."""
    refuses_shared_profile: bool = False
    """Whether Builder ID's shared profile works for usage only, as was observed for some users."""
    bad_token_status: Literal[400, 403] = 403
    """The status with which management calls refuse an invalid token: both were observed."""

    takes_any_bearer: bool = False
    """Whether unknown bearer tokens are taken, with any profile: for programs with a real login."""

    _access: dict[str, Identity] = field(default_factory=dict[str, Identity], init=False)
    _refresh: dict[str, Tokens] = field(default_factory=dict[str, Tokens], init=False)
    _clients: dict[str, str] = field(default_factory=dict[str, str], init=False)
    _logins: dict[str, DeviceLogin] = field(default_factory=dict[str, DeviceLogin], init=False)
    _serial: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._clients[EMULATOR_CLIENT_ID] = EMULATOR_CLIENT_SECRET
        self._access[EMULATOR_API_KEY] = "api_key"
        self._access[EMULATOR_BUILDER_ID_ACCESS_TOKEN] = "builder_id"
        self._store("idc", EMULATOR_ACCESS_TOKEN, EMULATOR_REFRESH_TOKEN, EMULATOR_CLIENT_ID)
        self._store("social", EMULATOR_SOCIAL_ACCESS_TOKEN, EMULATOR_SOCIAL_REFRESH_TOKEN, "")

    def identify(self, bearer: str, token_type: str) -> Identity | None:
        """Return the identity of a bearer token; None if it is unknown or has the wrong type."""
        identity = self._access.get(bearer)
        if identity is None:
            return "idc" if self.takes_any_bearer and bearer else None
        wanted = {"idc": self.identity_center_token_type, "api_key": "API_KEY"}.get(identity, "")
        return identity if wanted == token_type.upper() else None

    def profiles_of(self, identity: Identity) -> tuple[str, ...]:
        """The profiles that an identity may name in its calls."""
        if identity == "builder_id":
            return (BUILDER_ID_PROFILE_ARN,)
        return self.profile_arns if identity == "idc" else self.profile_arns[:1]

    def expire_access_tokens(self) -> None:
        """Invalidate all access tokens; API keys and refresh tokens stay valid."""
        self._access = {token: who for token, who in self._access.items() if who == "api_key"}

    def add_api_key(self, key: str) -> None:
        """Accept another API key."""
        self._access[key] = "api_key"

    def revoke(self, bearer: str) -> None:
        """Invalidate one API key or access token."""
        self._access.pop(bearer, None)

    def register_client(self) -> tuple[str, str]:
        """Return the id and the secret of a new client."""
        client_id = f"emulated-client-{self._next_serial():04d}"
        secret = f"{client_id}-secret"
        _store_limited(self._clients, client_id, secret)
        return client_id, secret

    def is_client(self, client_id: str, client_secret: str) -> bool:
        """Whether a client with this id and secret is registered."""
        return self._clients.get(client_id) == client_secret

    def start_device_login(self, identity: Identity, client_id: str) -> DeviceLogin:
        """Start a device login."""
        serial = f"{self._next_serial():04d}"
        code = f"emulated-device-code-{serial}"
        login = DeviceLogin(code, f"EMUL-{serial}", identity, client_id)
        _store_limited(self._logins, code, login)
        return login

    def poll(self, device_code: str, client_id: str) -> Tokens | PollError:
        """Poll a device login. Its tokens are returned only once."""
        login = self._logins.get(device_code)
        if login is None or login.client_id != client_id:
            return "invalid_grant"
        login.polls += 1
        if login.polls <= self.slow_downs:
            return "slow_down"
        if login.polls <= self.slow_downs + self.pending_polls:
            return "authorization_pending"
        if self.device_outcome != "granted":
            return self.device_outcome
        del self._logins[device_code]
        return self._issue(login.identity, client_id)

    def refresh(self, refresh_token: str, client_id: str) -> Tokens | None:
        """Return new tokens; None if the refresh token is invalid or belongs to another client."""
        old = self._refresh.get(refresh_token)
        if old is None or old.client_id != client_id:
            return None
        self.log_out(refresh_token)
        return self._issue(old.identity, client_id)

    def log_out(self, refresh_token: str) -> None:
        """Invalidate a refresh token and its access token. An invalid one is ignored."""
        if old := self._refresh.pop(refresh_token, None):
            self.revoke(old.access_token)

    def _issue(self, identity: Identity, client_id: str) -> Tokens:
        name = f"{self._next_serial():06d}"
        return self._store(identity, _invented("aoa", name), _invented("aor", name), client_id)

    def _store(self, identity: Identity, access: str, refresh: str, client_id: str) -> Tokens:
        tokens = Tokens(identity, access, refresh, client_id)
        _store_limited(self._access, access, identity)
        _store_limited(self._refresh, refresh, tokens)
        return tokens

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial


def _store_limited(table: dict[str, _Value], key: str, value: _Value) -> None:
    table[key] = value
    if len(table) > MAX_ENTRIES:
        del table[next(iter(table))]
