"""The operations of the service, independent of their addresses: one function each.

An operation takes a request and returns the script of its answer. Four groups:

    answers       `generate`: returns the script of a prompt, or a refusal
    management    models, usage limits, profiles; each has a REST and an RPC address
    AWS SSO OIDC  device logins and refresh; errors have status 400 and an `error` (401 if the
                  client is unknown)
    Kiro desktop  device logins, refresh and logout; every poll of a device login is answered with
                  status 200 and a `status`, times are in milliseconds; an invalid refresh token
                  is answered with 401

Source of truth: the service's published operations, the published model of AWS SSO OIDC, and the
observed answers of both services for each kind of identity.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from kiro_mcp.emulator.accounts import (
    BUILDER_ID_PROFILE_ARN,
    BUILDER_ID_START_URL,
    SOCIAL_PROFILE_ARN,
    Identity,
    Tokens,
)
from kiro_mcp.emulator.body import Conversation, WireForm, items, members, text
from kiro_mcp.emulator.refusals import (
    BAD_BEARER,
    INPUT_TOO_LONG,
    INVALID_TOKEN,
    MALFORMED,
    NO_BEARER,
    NOT_AUTHORIZED,
    NOT_FOR_API_KEYS,
    NOT_FOR_BUILDER_ID,
    Refusal,
)
from kiro_mcp.emulator.rules import refusals
from kiro_mcp.emulator.scripts import HttpAnswer, Script, json_answer
from kiro_mcp.emulator.state import EmulatorState, SeenRequest

_CONTENT_TYPES: Final = {
    WireForm.REST: "application/json",
    WireForm.RPC_GENERATE: "application/x-amz-json-1.0",
    WireForm.RPC_SEND: "application/x-amz-json-1.0",
}

_MAX_DETAIL_CHARACTERS: Final = 300
"""The longest `x-emulator-fault`; headers should be short."""

USED_CREDITS: Final = 12.5
CREDIT_LIMIT: Final = 1000
DAYS_TO_RESET: Final = 10

_DAY_SECONDS: Final = 24 * 60 * 60

_Item = TypeVar("_Item")

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


# --- who is calling


def caller_of(state: EmulatorState, request: SeenRequest) -> Identity | Refusal:
    """Return the identity of the bearer token of a request, or a refusal."""
    authorization = request.headers.get("authorization", "")
    if not authorization:
        return NO_BEARER
    scheme, _, bearer = authorization.partition(" ")
    token_type = request.headers.get("tokentype", "")
    identity = state.accounts.identify(bearer.strip(), token_type)
    return identity if identity and scheme.lower() == "bearer" else BAD_BEARER


def profile_fault(
    state: EmulatorState, caller: Identity, profile_arn: str, *, is_usage: bool = False
) -> Refusal | None:
    """Return a refusal unless the profile is empty, or active and one of the caller's."""
    accounts = state.accounts
    shared = {BUILDER_ID_PROFILE_ARN: "builder_id", SOCIAL_PROFILE_ARN: "social"}
    if {shared.get(profile_arn), caller.kind} == {"builder_id", "social"}:
        return BAD_BEARER  # Observed: the profile of the other kind makes a good token "invalid".
    if profile_arn == BUILDER_ID_PROFILE_ARN and accounts.refuses_shared_profile and not is_usage:
        return NOT_AUTHORIZED
    is_own = profile_arn in accounts.profiles_of(caller)
    if profile_arn and (not is_own or profile_arn in accounts.inactive_profile_arns):
        return NOT_AUTHORIZED
    return None


# --- answers


def generate(state: EmulatorState, request: SeenRequest, form: WireForm) -> Script:
    """Return the script of the answer to a prompt, or of its refusal."""
    refusal = _refuse_call(state, request, form)
    return (refusal,) if refusal else state.script_for(request.body)


def _refuse_call(state: EmulatorState, request: SeenRequest, form: WireForm) -> Refusal | None:
    caller = caller_of(state, request)
    if isinstance(caller, Refusal):
        return caller
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_mixed = form is WireForm.REST and "x-amz-target" in request.headers
    if content_type != _CONTENT_TYPES[form] or is_mixed:
        return _explained(MALFORMED, f"the {form.value} form takes {_CONTENT_TYPES[form]}")
    images = [image for turn in Conversation(request.body).turns for image in turn.images]
    encoded = (text(members(image.get("source")).get("bytes")) for image in images)
    if request.size_bytes - sum(map(len, encoded)) > state.max_input_bytes:
        return INPUT_TOO_LONG
    faults = refusals(
        request.body,
        form=form,
        catalogue=state.catalogue,
        requires_profile_arn=caller.kind != "api_key",
    )
    if faults:
        return _explained(faults[0].refusal, str(faults[0]))
    return profile_fault(state, caller, text(members(request.body).get("profileArn")))


def _explained(refusal: Refusal, detail: str) -> Refusal:
    """Add the reason of a refusal as a header, because the service's own message is vague."""
    printable = detail[:_MAX_DETAIL_CHARACTERS].encode("ascii", "backslashreplace").decode()
    return refusal.with_headers({"x-emulator-fault": "".join(printable.splitlines())})


# --- management


def list_models(state: EmulatorState, request: SeenRequest) -> Script:
    """Return the catalogue in two pages."""
    refusal = _refuse_management(state, request)
    page = _page_of(request, state.catalogue, (len(state.catalogue) + 1) // 2)
    if refusal or page is None:
        return (refusal or MALFORMED.saying("Invalid nextToken."),)
    models, following = page
    has_default = any(model["modelId"] == state.default_model_id for model in state.catalogue)
    answer: dict[str, Any] = {"models": [dict(model) for model in models], **following}
    if has_default:
        answer["defaultModel"] = {"modelId": state.default_model_id}
    return json_answer(answer)


def usage_limits(state: EmulatorState, request: SeenRequest) -> Script:
    """Return the credits of an invented plan."""
    refusal = _refuse_management(state, request)
    if refusal:
        return (refusal,)
    next_reset = state.now() + DAYS_TO_RESET * _DAY_SECONDS
    credits_used = {
        "resourceType": "CREDIT",
        "displayName": "Credit",
        "displayNamePlural": "Credits",
        "currentUsage": int(USED_CREDITS),
        "currentUsageWithPrecision": USED_CREDITS,
        "usageLimit": CREDIT_LIMIT,
        "usageLimitWithPrecision": float(CREDIT_LIMIT),
        "nextDateReset": next_reset,
    }
    return json_answer(
        {
            "daysUntilReset": 0,
            "nextDateReset": next_reset,
            "overageConfiguration": {"overageStatus": "DISABLED"},
            "subscriptionInfo": {"subscriptionTitle": "KIRO PRO", "type": "KIRO_PRO"},
            "usageBreakdownList": [credits_used],
            "userInfo": {"email": "person@example.com", "userId": "emulated-user"},
        }
    )


def list_profiles(state: EmulatorState, request: SeenRequest) -> Script:
    """Return the profiles of an Identity Center user, one per page; other users get none."""
    caller = _manager_of(state, request)
    if isinstance(caller, Refusal):
        return (caller,)
    if caller.kind == "api_key":
        return (NOT_FOR_API_KEYS,)
    if caller.kind == "builder_id":
        return (NOT_FOR_BUILDER_ID,)
    listed = state.accounts.profiles_of(caller) if caller.kind == "idc" else ()
    page = _page_of(request, listed, 1)
    if page is None:
        return (MALFORMED.saying("Invalid nextToken."),)
    arns, following = page
    return json_answer({"profiles": [_profile(state, arn) for arn in arns], **following})


def get_profile(state: EmulatorState, request: SeenRequest) -> Script:
    """Return the caller's profile. With an API key, this is the only way to get it."""
    caller = _manager_of(state, request)
    if isinstance(caller, Refusal):
        return (caller,)
    profile_arns = state.accounts.profiles_of(caller)
    if caller.kind == "builder_id" or not profile_arns:
        return (NOT_FOR_BUILDER_ID if caller.kind == "builder_id" else NOT_AUTHORIZED,)
    return json_answer({"profile": _profile(state, profile_arns[0])})


def _profile(state: EmulatorState, arn: str) -> dict[str, str]:
    status = "INACTIVE" if arn in state.accounts.inactive_profile_arns else "ACTIVE"
    return {"arn": arn, "profileName": "Emulated", "profileType": "KIRO", "status": status}


def _manager_of(state: EmulatorState, request: SeenRequest) -> Identity | Refusal:
    """Return the identity of the caller of a management operation, or a refusal."""
    caller = caller_of(state, request)
    if caller == BAD_BEARER and state.accounts.bad_token_status == 400:
        return INVALID_TOKEN
    return caller


def _refuse_management(state: EmulatorState, request: SeenRequest) -> Refusal | None:
    caller = _manager_of(state, request)
    if isinstance(caller, Refusal):
        return caller
    if not _parameter(request, "origin"):
        return MALFORMED
    header = request.headers.get("x-amzn-kiro-profile-arn", "")
    profile_arn = _parameter(request, "profileArn") or header
    if caller.kind == "idc" and not profile_arn:
        return NOT_AUTHORIZED
    is_usage = request.operation == "GetUsageLimits"
    return profile_fault(state, caller, profile_arn, is_usage=is_usage)


def _parameter(request: SeenRequest, name: str) -> str:
    """Return a parameter from the query (REST form) or from the body."""
    return request.query.get(name, "") or text(members(request.body).get(name))


def _page_of(
    request: SeenRequest, listed: Sequence[_Item], size: int
) -> tuple[Sequence[_Item], Mapping[str, str]] | None:
    """Return a page and the token of the next one, if any; None for an unknown token."""
    starts = {
        "": 0,
        **{f"emulated-page-{start}": start for start in range(size, len(listed), size)},
    }
    start = starts.get(_parameter(request, "nextToken"))
    if start is None:
        return None
    end = start + size
    following = {"nextToken": f"emulated-page-{end}"} if end < len(listed) else {}
    return listed[start:end], following


# --- sign-in


def register_client(state: EmulatorState, request: SeenRequest) -> Script:
    """AWS: register a new client. Its refresh tokens are bound to it."""
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
    """AWS: return a code for the user to confirm; the start URL identifies Builder ID."""
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
    """AWS: return tokens for a confirmed device login or a refresh token of the same client."""
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
    """Desktop: return new tokens for a refresh token, which must be the only member."""
    body = members(request.body)
    if set(body) != {"refreshToken"}:
        return json_answer({"message": "Invalid refresh token provided"}, status=400)
    tokens = state.accounts.refresh(text(body["refreshToken"]), "")
    if tokens is None:
        return json_answer({"message": "Bad credentials"}, status=401)
    return json_answer({**_token_fields(state, tokens), "profileArn": _profile_of(state, tokens)})


def start_desktop_login(state: EmulatorState, request: SeenRequest) -> Script:
    """Desktop: return a code for the user to confirm with Google or GitHub."""
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
            "verificationUriComplete": (
                f"{_KIRO_DEVICE_PAGE}?user_code={login.user_code}&login_provider={provider}"
            ),
        }
    )


def poll_desktop_login(state: EmulatorState, request: SeenRequest) -> Script:
    """Desktop: return the status of a device login, with its tokens once it is confirmed."""
    found = state.accounts.poll(text(members(request.body).get("deviceCode")), "")
    if not isinstance(found, Tokens):
        status = "invalid_token" if found in ("invalid_grant", "access_denied") else found
        return json_answer({"accessToken": None, "refreshToken": None, "status": status})
    return json_answer(
        {
            **_token_fields(state, found),
            "profileArn": _profile_of(state, found),
            "status": "authorized",
        }
    )


def log_out(state: EmulatorState, request: SeenRequest) -> Script:
    """Desktop: invalidate a refresh token and its access token; the answer is empty."""
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
