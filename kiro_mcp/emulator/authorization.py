"""Who is calling: the bearer and the profile of a request, into an identity or a refusal."""

from kiro_mcp.emulator.accounts import (
    BUILDER_ID_PROFILE_ARN,
    SOCIAL_PROFILE_ARN,
    Identity,
)
from kiro_mcp.emulator.refusals import BAD_BEARER, NO_BEARER, NOT_AUTHORIZED, Refusal
from kiro_mcp.emulator.state import EmulatorState, SeenRequest


def caller_of(state: EmulatorState, request: SeenRequest) -> Identity | Refusal:
    """Whom the bearer of a request stands for."""
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
    """A profile that is named has to be one of the caller's own, and active."""
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
