"""Who is signed in, from where and why, and what is left of the plan: all that can be shown."""

from dataclasses import dataclass, field

from kiro_mcp.auth.provider import TokenProvider
from kiro_mcp.auth.sources import Finding
from kiro_mcp.auth.tokens import Credential
from kiro_mcp.chat import AccessToken
from kiro_mcp.client.management import UsageLimits
from kiro_mcp.errors import KiroError, SignInRequired
from kiro_mcp.redaction import mask, mask_address


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInStatus:
    """What `login` and `kiro-mcp status` say; nothing in it is secret."""

    is_signed_in: bool
    credential: Credential | None = None
    account: str = ""
    """Enough to tell two accounts apart."""
    profile_arn: str = ""
    region: str = ""
    credits: UsageLimits = field(default_factory=UsageLimits)
    findings: tuple[Finding, ...] = ()
    problem: KiroError | None = None
    """Why nobody is signed in, why no call can be made, or why the credits are not known."""
    is_usable: bool = True
    """Whether calls can be made with it as things stand; if not, `problem` says what is missing."""
    is_misconfigured: bool = False
    """Whether what is wrong is a source that the user named: no new login would be used."""


async def sign_in_status(tokens: TokenProvider) -> SignInStatus:
    """Say who is signed in. An expired login is renewed first; the service is asked for credits."""
    resolution = await tokens.resolution()
    try:
        token = await tokens.access_token()
    except KiroError as error:
        credential = (await tokens.resolution()).credential
        # Without a profile, for instance, somebody is signed in all the same.
        is_in = credential is not None and not isinstance(error, SignInRequired)
        return SignInStatus(
            is_signed_in=is_in,
            is_usable=False,
            account=mask(credential.access_token) if credential and is_in else "",
            credential=credential,
            findings=resolution.findings,
            problem=error,
            is_misconfigured=resolution.problem is not None,
        )
    resolution = await tokens.resolution()
    credential = resolution.credential
    credits, problem = await _credits(tokens, token)
    arn = token.profile_arn
    if credential and credential.kind == "api_key" and problem is None:
        token = await tokens.access_token()  # Its region may have been found since.
        arn = await tokens.management.find_key_profile(token)
    return SignInStatus(
        is_signed_in=not isinstance(problem, SignInRequired) or problem.code != "auth_expired",
        credential=credential,
        account=mask_address(credits.email) if credits.email else mask(token.value),
        profile_arn=arn,
        region=token.region,
        credits=credits,
        findings=resolution.findings,
        problem=problem,
    )


async def _credits(
    tokens: TokenProvider, token: AccessToken
) -> tuple[UsageLimits, KiroError | None]:
    """Ask for the credits; a refused token is renewed once."""
    try:
        return await tokens.management.usage_limits(token), None
    except SignInRequired as error:
        if error.status is None:
            return UsageLimits(), error
    except KiroError as error:
        return UsageLimits(), error
    try:
        return await tokens.management.usage_limits(await tokens.refreshed(token)), None
    except KiroError as error:
        return UsageLimits(), error
