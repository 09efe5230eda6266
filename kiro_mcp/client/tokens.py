"""What the client asks of whoever holds the credentials."""

from typing import Protocol, runtime_checkable

from kiro_mcp.chat import AccessToken


class TokenSource(Protocol):
    """Whatever can say which token a request goes with."""

    async def access_token(self) -> AccessToken:
        """Return a token that the service should take, or raise `SignInRequired`."""
        ...


@runtime_checkable
class RefreshingTokenSource(TokenSource, Protocol):
    """One that can also renew a token which the service has refused."""

    async def refreshed(self, rejected: AccessToken) -> AccessToken:
        """Return another token than the refused one, or raise a `KiroError`."""
        ...


@runtime_checkable
class TypedTokenSource(TokenSource, Protocol):
    """One that can also say of a token what kind it is, which some logins have to."""

    async def retyped(self, rejected: AccessToken) -> AccessToken | None:
        """Return the refused token with a `TokenType`, or None where that does not help."""
        ...


@runtime_checkable
class ProfileSource(TokenSource, Protocol):
    """One that can also look up the profile anew, which the service may no longer take."""

    async def reprofiled(self, rejected: AccessToken) -> AccessToken | None:
        """Return the token with another profile than the refused one, or None."""
        ...
