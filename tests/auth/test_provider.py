"""Which credential is used, and what is said when there is none."""

import pytest

from kiro_mcp.auth.provider import TokenProvider
from kiro_mcp.errors import InvalidRequest, SignInRequired
from kiro_mcp.settings import Settings

ARN = "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE"


def provider(**environ: str) -> TokenProvider:
    return TokenProvider(Settings.load(environ))


async def test_signed_out_names_the_variable_to_set() -> None:
    """Ours: the first call works, or says exactly what to do."""
    with pytest.raises(SignInRequired, match="KIRO_API_KEY"):
        await provider().access_token()


async def test_an_api_key_wins_over_an_access_token() -> None:
    """Ours: the key is the vendor's documented way to run unattended, and does not expire."""
    tokens = provider(KIRO_API_KEY="ksk_x", KIRO_ACCESS_TOKEN="aoa", KIRO_PROFILE_ARN=ARN)
    assert (await tokens.access_token()).value == "ksk_x"


async def test_an_access_token_goes_with_its_profile() -> None:
    """Observed: without one the service answers "profileArn is required for this request"."""
    token = await provider(KIRO_ACCESS_TOKEN="aoa", KIRO_PROFILE_ARN=ARN).access_token()
    assert (token.value, token.profile_arn, token.token_type) == ("aoa", ARN, "")


@pytest.mark.parametrize(("arn", "says"), [("", "is not set"), ("arn:x", "'arn:x'")])
async def test_an_access_token_without_a_usable_profile_is_refused_before_sending(
    arn: str, says: str
) -> None:
    """Ours: the service's own answer to it names no cause."""
    with pytest.raises(InvalidRequest, match=says):
        await provider(KIRO_ACCESS_TOKEN="aoa", KIRO_PROFILE_ARN=arn).access_token()


async def test_a_token_from_the_environment_counts_as_given_on_purpose() -> None:
    """Ours: only such a token may go to an overridden host."""
    assert (await provider(KIRO_API_KEY="ksk_x").access_token()).is_explicit
