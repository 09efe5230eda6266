"""Where credentials are looked for, in order, and what was seen at each place."""

from kiro_mcp.auth.tokens import Credential, region_of
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.settings import Settings


def from_settings(settings: Settings) -> Credential | None:
    """Return the credential that the environment gives, or None.

    An API key wins over an access token: it is the vendor's documented way to run unattended,
    and it does not expire.

    Raises:
        InvalidRequest: There is an access token without a usable profile ARN.
    """
    if api_key := settings.api_key.get_secret_value():
        return Credential(kind="api_key", secret=api_key, source="KIRO_API_KEY")
    if token := settings.access_token.get_secret_value():
        return Credential(
            kind="access_token",
            secret=token,
            source="KIRO_ACCESS_TOKEN",
            profile_arn=_checked_arn(settings.profile_arn),
        )
    return None


def _checked_arn(profile_arn: str) -> str:
    # The service answers a missing profile with 400 and a foreign one with "Improperly formed
    # request"; both are better said before anything is sent.
    if region_of(profile_arn):
        return profile_arn
    found = f"KIRO_PROFILE_ARN is {profile_arn!r}" if profile_arn else "KIRO_PROFILE_ARN is not set"
    raise InvalidRequest(
        f"KIRO_ACCESS_TOKEN needs the profile to bill, and {found}.",
        next_step="Set it to the profile's ARN: arn:aws:codewhisperer:REGION:ACCOUNT:profile/ID.",
    )
