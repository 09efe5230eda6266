"""The sign-in services: device logins, refresh and logout, of AWS SSO OIDC and of Kiro's desktop.

AWS SSO OIDC answers faults with status 400 and an `error` (401 where the client is unknown); the
desktop service answers every poll of a device login with status 200 and a `status`, and counts in
milliseconds. Source of truth: the published model of AWS SSO OIDC, and the desktop service as
observed; there, a stale refresh token is answered with 401.
"""

from typing import Any, Final

from kiro_mcp.emulator.accounts import (
    BUILDER_ID_START_URL,
    DeviceLogin,
    PollError,
    Tokens,
)
from kiro_mcp.emulator.body import items, members, text
from kiro_mcp.emulator.state import EmulatorState, SeenRequest
from kiro_mcp.emulator.steps import HttpAnswer, Script, json_answer

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
CLIENT_LIFETIME_SECONDS: Final = 90 * 24 * 60 * 60

_SCOPES: Final = frozenset(
    f"codewhisperer:{name}"
    for name in ("analysis", "completions", "conversations", "taskassist", "transformations")
)
_DESCRIPTIONS: Final[dict[str, str]] = {
    "access_denied": "The login was refused.",
    "authorization_pending": "The login is not confirmed yet.",
    "expired_token": "The device code has expired.",
    "invalid_client": "The client is not registered.",
    "invalid_grant": "Invalid refresh token provided",
    "invalid_request": "Invalid request",
    "invalid_scope": "A scope is not known.",
    "slow_down": "Polls come too often.",
    "unsupported_grant_type": "The grant type is not known.",
}

_AWS_DEVICE_PAGE: Final = "https://device.sso.us-east-1.amazonaws.com/"
_KIRO_DEVICE_PAGE: Final = "https://app.kiro.dev/account/device"


def register_client(state: EmulatorState, request: SeenRequest) -> Script:
    """AWS: a new client, which its refresh tokens will be bound to."""
    body = members(request.body)
    if not text(body.get("clientName")) or body.get("clientType") != "public":
        return _oidc_error("invalid_request")
    if not {text(scope) for scope in items(body.get("scopes"))} <= _SCOPES:
        return _oidc_error("invalid_scope")
    client_id, client_secret = state.accounts.register_client()
    issued_at = int(state.now())
    return json_answer(
        {
            "clientId": client_id,
            "clientIdIssuedAt": issued_at,
            "clientSecret": client_secret,
            "clientSecretExpiresAt": issued_at + CLIENT_LIFETIME_SECONDS,
        }
    )


def start_device_login(state: EmulatorState, request: SeenRequest) -> Script:
    """AWS: a code for the user to confirm; the start URL tells Builder ID from the others."""
    if not _is_known_client(state, request):
        return _oidc_error("invalid_client")
    body = members(request.body)
    start_url = text(body.get("startUrl"))
    if not start_url.startswith("https://"):
        return _oidc_error("invalid_request")
    is_builder_id = start_url.rstrip("/#") == BUILDER_ID_START_URL
    kind = "builder_id" if is_builder_id else "idc"
    login = state.accounts.start_device_login(kind, text(body.get("clientId")))
    return json_answer(
        {
            "deviceCode": login.device_code,
            "expiresIn": state.accounts.device_login_seconds,
            "interval": state.accounts.poll_interval_seconds,
            "userCode": login.user_code,
            "verificationUri": _AWS_DEVICE_PAGE,
            "verificationUriComplete": f"{_AWS_DEVICE_PAGE}?user_code={login.user_code}",
        }
    )


def create_token(state: EmulatorState, request: SeenRequest) -> Script:
    """AWS: tokens for a confirmed device login, or for a refresh token of the same client."""
    body = members(request.body)
    grant_type, client_id = text(body.get("grantType")), text(body.get("clientId"))
    if grant_type not in (DEVICE_GRANT, "refresh_token"):
        return _oidc_error("unsupported_grant_type")
    if not _is_known_client(state, request):
        return _oidc_error("invalid_client")
    if grant_type == DEVICE_GRANT:
        found = state.accounts.poll(text(body.get("deviceCode")), client_id)
    else:
        found = state.accounts.refresh(text(body.get("refreshToken")), client_id)
    if not isinstance(found, Tokens):
        return _oidc_error(found or "invalid_grant")
    return json_answer({**_token_fields(state, found), "tokenType": "Bearer"})


def _is_known_client(state: EmulatorState, request: SeenRequest) -> bool:
    body = members(request.body)
    return state.accounts.is_client(text(body.get("clientId")), text(body.get("clientSecret")))


def _oidc_error(error: str) -> Script:
    name = "".join(word.capitalize() for word in error.split("_"))
    return json_answer(
        {"error": error, "error_description": _DESCRIPTIONS[error]},
        status=401 if error == "invalid_client" else 400,
        headers={"x-amzn-errortype": f"{name}Exception"},
    )


def refresh_desktop_token(state: EmulatorState, request: SeenRequest) -> Script:
    """Desktop: new tokens for a refresh token, which is all that the body holds."""
    body = members(request.body)
    if set(body) != {"refreshToken"}:
        return json_answer({"message": "Invalid refresh token provided"}, status=400)
    tokens = state.accounts.refresh(text(body["refreshToken"]), "")
    if tokens is None:
        return json_answer({"message": "Bad credentials"}, status=401)
    return json_answer({**_token_fields(state, tokens), "profileArn": _profile_of(state, tokens)})


def start_desktop_login(state: EmulatorState, request: SeenRequest) -> Script:
    """Desktop: a code for the user to confirm with Google or GitHub."""
    body = members(request.body)
    provider = text(body.get("loginProvider"))
    if provider not in ("Google", "Github") or not text(body.get("clientId")):
        return json_answer({"message": "Invalid request"}, status=400)
    # The client id is a public name here, not a registration that tokens are bound to.
    login = state.accounts.start_device_login("social", "")
    return json_answer(
        {
            "deviceCode": login.device_code,
            "expiresInMilliseconds": state.accounts.device_login_seconds * 1000,
            "intervalInMilliseconds": state.accounts.poll_interval_seconds * 1000,
            "userCode": login.user_code,
            "verificationUri": _KIRO_DEVICE_PAGE,
            "verificationUriComplete": _complete(login, provider),
        }
    )


def _complete(login: DeviceLogin, provider: str) -> str:
    return f"{_KIRO_DEVICE_PAGE}?user_code={login.user_code}&login_provider={provider}"


def poll_desktop_login(state: EmulatorState, request: SeenRequest) -> Script:
    """Desktop: how a device login stands; its tokens, once it is confirmed."""
    found = state.accounts.poll(text(members(request.body).get("deviceCode")), "")
    if not isinstance(found, Tokens):
        return json_answer({"accessToken": None, "refreshToken": None, "status": _status(found)})
    return json_answer(
        {
            **_token_fields(state, found),
            "profileArn": _profile_of(state, found),
            "status": "authorized",
        }
    )


def _status(error: PollError) -> str:
    return "invalid_token" if error in ("invalid_grant", "access_denied") else error


def log_out(state: EmulatorState, request: SeenRequest) -> Script:
    """Desktop: the end of a refresh token and of its access token; the answer is empty."""
    state.accounts.log_out(text(members(request.body).get("refreshToken")))
    return (HttpAnswer(),)


def _token_fields(state: EmulatorState, tokens: Tokens) -> dict[str, Any]:
    return {
        "accessToken": tokens.access_token,
        "expiresIn": state.accounts.access_token_seconds,
        "refreshToken": tokens.refresh_token,
    }


def _profile_of(state: EmulatorState, tokens: Tokens) -> str:
    return state.accounts.profiles_of(tokens.identity)[0]
