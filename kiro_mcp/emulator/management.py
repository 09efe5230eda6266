"""What the service says about itself and about its caller: models, usage limits, profiles.

Each operation has its REST and its RPC address; both come here. Source of truth: the service's
published operations, and their answers as observed for each kind of identity.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from kiro_mcp.emulator.accounts import Identity
from kiro_mcp.emulator.authorization import caller_of, profile_fault
from kiro_mcp.emulator.body import members, text
from kiro_mcp.emulator.refusals import (
    BAD_BEARER,
    INVALID_TOKEN,
    MALFORMED,
    NOT_AUTHORIZED,
    NOT_FOR_API_KEYS,
    NOT_FOR_BUILDER_ID,
    Refusal,
)
from kiro_mcp.emulator.state import EmulatorState, SeenRequest
from kiro_mcp.emulator.steps import Script, json_answer

USED_CREDITS: Final = 12.5
CREDIT_LIMIT: Final = 1000
DAYS_TO_RESET: Final = 10

_DAY_SECONDS: Final = 24 * 60 * 60

_Item = TypeVar("_Item")


def list_models(state: EmulatorState, request: SeenRequest) -> Script:
    """The catalogue, half of it in each of two pages."""
    refusal = _refusal_of(state, request)
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
    """The credits of an invented plan."""
    refusal = _refusal_of(state, request)
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
    """The profiles of an Identity Center user, one a page; no one else's are listed."""
    caller = _caller_of(state, request)
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
    """The caller's profile; the way to it for an API key."""
    caller = _caller_of(state, request)
    if isinstance(caller, Refusal):
        return (caller,)
    profile_arns = state.accounts.profiles_of(caller)
    if caller.kind == "builder_id" or not profile_arns:
        return (NOT_FOR_BUILDER_ID if caller.kind == "builder_id" else NOT_AUTHORIZED,)
    return json_answer({"profile": _profile(state, profile_arns[0])})


def _profile(state: EmulatorState, arn: str) -> dict[str, str]:
    status = "INACTIVE" if arn in state.accounts.inactive_profile_arns else "ACTIVE"
    return {"arn": arn, "profileName": "Emulated", "profileType": "KIRO", "status": status}


def _caller_of(state: EmulatorState, request: SeenRequest) -> Identity | Refusal:
    caller = caller_of(state, request)
    if caller == BAD_BEARER and state.accounts.bad_token_status == 400:
        return INVALID_TOKEN
    return caller


def _refusal_of(state: EmulatorState, request: SeenRequest) -> Refusal | None:
    caller = _caller_of(state, request)
    if isinstance(caller, Refusal):
        return caller
    if not _parameter(request, "origin"):
        return MALFORMED
    profile_arn = _profile_named(request)
    if _needs_profile(caller) and not profile_arn:
        return NOT_AUTHORIZED
    is_usage = request.operation == "GetUsageLimits"
    return profile_fault(state, caller, profile_arn, is_usage=is_usage)


def _needs_profile(caller: Identity) -> bool:
    return caller.kind == "idc"


def _profile_named(request: SeenRequest) -> str:
    return _parameter(request, "profileArn") or request.headers.get("x-amzn-kiro-profile-arn", "")


def _parameter(request: SeenRequest, name: str) -> str:
    """A parameter in the query, where the REST form has it, or in the body."""
    return request.query.get(name, "") or text(members(request.body).get(name))


def _page_of(
    request: SeenRequest, listed: Sequence[_Item], size: int
) -> tuple[Sequence[_Item], Mapping[str, str]] | None:
    """One page and the token of the next, if there is one; None for a token never given."""
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
