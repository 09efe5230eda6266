"""The operations of the service, independent of their addresses: one function each.

An operation takes a request and returns the JSON or the script of its answer, or raises `Refused`.
Four groups:

    answers       `generate`: returns the script of a prompt
    management    models, usage limits, profiles; each has a REST and an RPC address
    AWS SSO OIDC  device logins and refresh; errors have status 400 and an `error` (401 if the
                  client is unknown)
    Kiro desktop  device logins, refresh and logout; every poll of a device login is answered with
                  status 200 and a `status`, times are in milliseconds; an invalid refresh token
                  is answered with 401

Source of truth: the service's published operations, the published model of AWS SSO OIDC, and the
observed answers of both services for each kind of identity.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, cast

from kiro_mcp.emulator import refusals
from kiro_mcp.emulator.accounts import (
    BUILDER_ID_PROFILE_ARN,
    BUILDER_ID_START_URL,
    SOCIAL_PROFILE_ARN,
    Identity,
    Tokens,
)
from kiro_mcp.emulator.refusals import Refusal, Refused
from kiro_mcp.emulator.request import WireForm
from kiro_mcp.emulator.rules import read_call
from kiro_mcp.emulator.scripts import HttpAnswer, Script, json_answer
from kiro_mcp.emulator.state import GENERATE, EmulatorState, SeenRequest

Json: TypeAlias = dict[str, Any]

_MAX_DETAIL_CHARACTERS: Final = 300
"""The longest `x-emulator-fault`; headers should be short."""

USED_CREDITS: Final = 12.5
CREDIT_LIMIT: Final = 1000
DAYS_TO_RESET: Final = 10

_DAY_SECONDS: Final = 24 * 60 * 60

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


def _caller_of(state: EmulatorState, request: SeenRequest) -> Identity:
    """Return the identity of the bearer token of a request."""
    authorization = request.headers.get("authorization", "")
    if not authorization:
        raise Refused(refusals.NO_BEARER)
    scheme, _, bearer = authorization.partition(" ")
    token_type = request.headers.get("tokentype", "")
    identity = state.accounts.identify(bearer.strip(), token_type)
    if not identity or scheme.lower() != "bearer":
        is_management = request.operation not in (GENERATE, "InvokeMCP")
        is_other = is_management and state.accounts.bad_token_status == 400
        raise Refused(refusals.INVALID_TOKEN if is_other else refusals.BAD_BEARER)
    return identity


def _check_profile(
    state: EmulatorState, request: SeenRequest, caller: Identity, profile_arn: str
) -> None:
    """Check that the profile is empty, or active and one of the caller's."""
    accounts = state.accounts
    if accounts.takes_any_bearer:
        return
    shared = {BUILDER_ID_PROFILE_ARN: "builder_id", SOCIAL_PROFILE_ARN: "social"}
    if {shared.get(profile_arn), caller} == {"builder_id", "social"}:
        # Observed: the profile of the other kind makes a good token "invalid".
        raise Refused(refusals.BAD_BEARER)
    is_usage = request.operation == "GetUsageLimits"
    if profile_arn == BUILDER_ID_PROFILE_ARN and accounts.refuses_shared_profile and not is_usage:
        raise Refused(refusals.NOT_AUTHORIZED)
    is_own = profile_arn in accounts.profiles_of(caller)
    if profile_arn and (not is_own or profile_arn in accounts.inactive_profile_arns):
        raise Refused(refusals.NOT_AUTHORIZED)


# --- answers


def generate(state: EmulatorState, request: SeenRequest) -> Script:
    """Return the script of the answer to a prompt."""
    caller = _caller_of(state, request)
    form = request.form
    wanted = "application/json" if form is WireForm.REST else "application/x-amz-json-1.0"
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_mixed = form is WireForm.REST and "x-amz-target" in request.headers
    if content_type != wanted or is_mixed:
        raise Refused(_explained(refusals.MALFORMED, f"the {form.value} form takes {wanted}"))
    call, faults = read_call(
        request.body,
        form=form,
        catalogue=state.catalogue,
        requires_profile_arn=caller != "api_key",
    )
    if call is None or faults:
        refusal = faults[0].refusal
        if form is WireForm.KAS and refusal.message == refusals.MALFORMED.message:
            refusal = refusal.saying(str(faults[0]))  # Help with a form that is not documented.
        raise Refused(_explained(refusal, str(faults[0])))
    images = sum(len(image.source.data) for image in call.images)
    if request.size_bytes - images > state.max_input_bytes:
        raise Refused(refusals.INPUT_TOO_LONG)
    _check_profile(state, request, caller, call.request.profile_arn)
    return state.script_for(call)


def _explained(refusal: Refusal, detail: str) -> Refusal:
    """Add the reason of a refusal as a header, because the service's own message is vague."""
    printable = detail[:_MAX_DETAIL_CHARACTERS].encode("ascii", "backslashreplace").decode()
    return refusal.with_headers({"x-emulator-fault": "".join(printable.splitlines())})


# --- management


def list_models(state: EmulatorState, request: SeenRequest) -> Json:
    """Return the catalogue in two pages."""
    if request.is_kas and (request.query or not request.text("origin")):
        raise Refused(
            refusals.MALFORMED.saying("All parameters, the origin included, belong in the body.")
        )
    _check_parameters(state, request)
    ids = [model["modelId"] for model in state.catalogue]
    answer = _page(request, "models", state.catalogue, max(1, (len(ids) + 1) // 2))
    if state.default_model_id in ids:
        answer["defaultModel"] = {"modelId": state.default_model_id}
    return answer


def invoke_mcp(state: EmulatorState, request: SeenRequest) -> Json:
    """Return the result of a JSON-RPC call: the tool `web_search`, or no pages that it found."""
    caller = _caller_of(state, request)
    _check_profile(state, request, caller, request.text("profileArn"))
    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    results: Json = {
        "tools/list": {"tools": [{"name": "web_search", "inputSchema": schema}]},
        "tools/call": {"content": [{"type": "text", "text": '{"results": []}'}], "isError": False},
    }
    method = request.text("method")
    if method not in results:
        raise Refused(refusals.MALFORMED.saying(f"{method!r:.80} is not tools/list or tools/call."))
    return {"jsonrpc": "2.0", "id": request.members.get("id"), "result": results[method]}


def usage_limits(state: EmulatorState, request: SeenRequest) -> Json:
    """Return the credits of an invented plan."""
    _check_parameters(state, request)
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
    return {
        "daysUntilReset": 0,
        "nextDateReset": next_reset,
        "overageConfiguration": {"overageStatus": "DISABLED"},
        "subscriptionInfo": {"subscriptionTitle": "KIRO PRO", "type": "KIRO_PRO"},
        "usageBreakdownList": [credits_used],
        "userInfo": {"email": "person@example.com", "userId": "emulated-user"},
    }


def list_profiles(state: EmulatorState, request: SeenRequest) -> Json:
    """Return the profiles of an Identity Center user, one per page; other users get none."""
    caller = _caller_of(state, request)
    if caller == "api_key":
        raise Refused(refusals.NOT_FOR_API_KEYS)
    if caller == "builder_id":
        raise Refused(refusals.NOT_FOR_BUILDER_ID)
    arns = state.accounts.profiles_of(caller) if caller == "idc" else ()
    return _page(request, "profiles", [_profile(state, arn) for arn in arns], 1)


def get_profile(state: EmulatorState, request: SeenRequest) -> Json:
    """Return the caller's profile. With an API key, this is the only way to get it."""
    caller = _caller_of(state, request)
    if caller == "builder_id":
        raise Refused(refusals.NOT_FOR_BUILDER_ID)
    arns = state.accounts.profiles_of(caller)
    if not arns:
        raise Refused(refusals.NOT_AUTHORIZED)
    return {"profile": _profile(state, arns[0])}


def _profile(state: EmulatorState, arn: str) -> Json:
    status = "INACTIVE" if arn in state.accounts.inactive_profile_arns else "ACTIVE"
    return {"arn": arn, "profileName": "Emulated", "profileType": "KIRO", "status": status}


def _check_parameters(state: EmulatorState, request: SeenRequest) -> None:
    """Check the caller, the origin and the profile of a management operation."""
    caller = _caller_of(state, request)
    if not _parameter(request, "origin"):
        raise Refused(refusals.MALFORMED)
    header = request.headers.get("x-amzn-kiro-profile-arn", "")
    profile_arn = _parameter(request, "profileArn") or header
    if caller == "idc" and not profile_arn:
        raise Refused(refusals.NOT_AUTHORIZED)
    _check_profile(state, request, caller, profile_arn)


def _parameter(request: SeenRequest, name: str) -> str:
    """Return a parameter from the query (REST form) or from the body."""
    return request.query.get(name, "") or request.text(name)


def _page(request: SeenRequest, name: str, listed: Sequence[object], size: int) -> Json:
    """Return the page of a list that `nextToken` asks for."""
    starts = range(0, max(1, len(listed)), size)
    token = _parameter(request, "nextToken") or "emulated-page-0"
    start = next((start for start in starts if token == f"emulated-page-{start}"), None)
    if start is None:
        raise Refused(refusals.MALFORMED.saying("Invalid nextToken."))
    end = start + size
    following = {"nextToken": f"emulated-page-{end}"} if end < len(listed) else {}
    return {name: listed[start:end], **following}


# --- sign-in: AWS SSO OIDC


def register_client(state: EmulatorState, request: SeenRequest) -> Json | Script:
    """AWS: register a new client. Its refresh tokens are bound to it."""
    if not request.text("clientName") or request.text("clientType") != "public":
        return _oidc_error("invalid_request")
    scopes = request.members.get("scopes", [])
    if not isinstance(scopes, list) or not _SCOPES.issuperset(map(str, cast("list[Any]", scopes))):
        return _oidc_error("invalid_scope")
    client_id, client_secret = state.accounts.register_client()
    issued_at = int(state.now())
    return {
        "clientId": client_id,
        "clientIdIssuedAt": issued_at,
        "clientSecret": client_secret,
        "clientSecretExpiresAt": issued_at + CLIENT_LIFETIME_SECONDS,
    }


def start_device_login(state: EmulatorState, request: SeenRequest) -> Json | Script:
    """AWS: return a code for the user to confirm; the start URL identifies Builder ID."""
    if not _is_known_client(state, request):
        return _oidc_error("invalid_client")
    start_url = request.text("startUrl")
    if not start_url.startswith("https://"):
        return _oidc_error("invalid_request")
    kind = "builder_id" if start_url.rstrip("/#") == BUILDER_ID_START_URL else "idc"
    login = state.accounts.start_device_login(kind, request.text("clientId"))
    return {
        "deviceCode": login.device_code,
        "expiresIn": state.accounts.device_login_seconds,
        "interval": state.accounts.poll_interval_seconds,
        "userCode": login.user_code,
        "verificationUri": _AWS_DEVICE_PAGE,
        "verificationUriComplete": f"{_AWS_DEVICE_PAGE}?user_code={login.user_code}",
    }


def create_token(state: EmulatorState, request: SeenRequest) -> Json | Script:
    """AWS: return tokens for a confirmed device login or a refresh token of the same client."""
    grant_type, client_id = request.text("grantType"), request.text("clientId")
    if grant_type not in (DEVICE_GRANT, "refresh_token"):
        return _oidc_error("unsupported_grant_type")
    if not _is_known_client(state, request):
        return _oidc_error("invalid_client")
    if grant_type == DEVICE_GRANT:
        found = state.accounts.poll(request.text("deviceCode"), client_id)
    else:
        found = state.accounts.refresh(request.text("refreshToken"), client_id)
    if not isinstance(found, Tokens):
        return _oidc_error(found or "invalid_grant")
    return {**_token_fields(state, found), "tokenType": "Bearer"}


def _is_known_client(state: EmulatorState, request: SeenRequest) -> bool:
    return state.accounts.is_client(request.text("clientId"), request.text("clientSecret"))


def _oidc_error(error: str) -> Script:
    name = "".join(word.capitalize() for word in error.split("_"))
    return json_answer(
        {"error": error, "error_description": _DESCRIPTIONS[error]},
        status=401 if error == "invalid_client" else 400,
        headers={"x-amzn-errortype": f"{name}Exception"},
    )


# --- sign-in: Kiro desktop


def refresh_desktop_token(state: EmulatorState, request: SeenRequest) -> Json | Script:
    """Desktop: return new tokens for a refresh token, which must be the only member."""
    if set(request.members) != {"refreshToken"}:
        return json_answer({"message": "Invalid refresh token provided"}, status=400)
    tokens = state.accounts.refresh(request.text("refreshToken"), "")
    if tokens is None:
        return json_answer({"message": "Bad credentials"}, status=401)
    return _desktop_token_fields(state, tokens)


def start_desktop_login(state: EmulatorState, request: SeenRequest) -> Json | Script:
    """Desktop: return a code for the user to confirm with Google or GitHub."""
    provider = request.text("loginProvider")
    if provider not in ("Google", "Github") or not request.text("clientId"):
        return json_answer({"message": "Invalid request"}, status=400)
    # The client id is a public name here, not a registration that tokens are bound to.
    login = state.accounts.start_device_login("social", "")
    query = f"user_code={login.user_code}&login_provider={provider}"
    return {
        "deviceCode": login.device_code,
        "expiresInMilliseconds": state.accounts.device_login_seconds * 1000,
        "intervalInMilliseconds": state.accounts.poll_interval_seconds * 1000,
        "userCode": login.user_code,
        "verificationUri": _KIRO_DEVICE_PAGE,
        "verificationUriComplete": f"{_KIRO_DEVICE_PAGE}?{query}",
    }


def poll_desktop_login(state: EmulatorState, request: SeenRequest) -> Json:
    """Desktop: return the status of a device login, with its tokens once it is confirmed."""
    found = state.accounts.poll(request.text("deviceCode"), "")
    if isinstance(found, Tokens):
        return {**_desktop_token_fields(state, found), "status": "authorized"}
    status = "invalid_token" if found in ("invalid_grant", "access_denied") else found
    return {"accessToken": None, "refreshToken": None, "status": status}


def log_out(state: EmulatorState, request: SeenRequest) -> Script:
    """Desktop: invalidate a refresh token and its access token; the answer is empty."""
    state.accounts.log_out(request.text("refreshToken"))
    return (HttpAnswer(),)


def _token_fields(state: EmulatorState, tokens: Tokens) -> Json:
    return {
        "accessToken": tokens.access_token,
        "expiresIn": state.accounts.access_token_seconds,
        "refreshToken": tokens.refresh_token,
    }


def _desktop_token_fields(state: EmulatorState, tokens: Tokens) -> Json:
    profile_arn = state.accounts.profiles_of(tokens.identity)[0]
    return {**_token_fields(state, tokens), "profileArn": profile_arn}
