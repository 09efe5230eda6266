"""The one place that the rest asks for a token: it finds the credential and keeps it fresh."""

from kiro_mcp.auth.sources import from_settings
from kiro_mcp.auth.tokens import Credential, access_token
from kiro_mcp.errors import SignInRequired
from kiro_mcp.models import AccessToken
from kiro_mcp.settings import Settings


class TokenProvider:
    """Hands out access tokens for the credential that settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def credential(self) -> Credential | None:
        """Return the credential in use, or None when signed out."""
        return from_settings(self._settings)

    async def access_token(self) -> AccessToken:
        """Return a token that the service should take.

        Raises:
            SignInRequired: There is no credential.
            InvalidRequest: There is one, and it lacks something.
        """
        credential = self.credential()
        if credential is None:
            raise SignInRequired(
                "No Kiro credential was found.",
                next_step="Set KIRO_API_KEY (made at https://app.kiro.dev) where this server is"
                " configured, or KIRO_ACCESS_TOKEN with KIRO_PROFILE_ARN, and start it again.",
            )
        return access_token(credential, api_region=self._settings.api_region)
