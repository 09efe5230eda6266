"""Credentials as values: what kinds there are and what a request needs from each."""

import re
from dataclasses import dataclass, field
from typing import Literal

from kiro_mcp.models import AccessToken, TokenType

DEFAULT_REGION = "us-east-1"
"""Where the service's data plane is, unless the profile's ARN or a setting says otherwise."""

CredentialKind = Literal["api_key", "access_token"]

_TOKEN_TYPES: dict[CredentialKind, TokenType] = {"api_key": "API_KEY", "access_token": ""}
_ARN = re.compile(r"arn:[a-z-]+:codewhisperer:(?P<region>[a-z]{2}(-gov)?-[a-z]+-\d):\d+:profile/.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A way to be let in, and where it came from."""

    kind: CredentialKind
    secret: str = field(repr=False)
    source: str
    """Where it was found, for people: the variable's or the file's name."""
    profile_arn: str = ""
    is_explicit: bool = True
    """Whether the user named it for this run, rather than it being found on the machine."""


def region_of(profile_arn: str) -> str:
    """Return the region in a profile's ARN, or "" where the text is not such an ARN."""
    match = _ARN.fullmatch(profile_arn)
    return match["region"] if match else ""


def access_token(credential: Credential, *, api_region: str) -> AccessToken:
    """Derive what a request carries.

    An API key goes without a profile: the service knows its own, and refuses another's.
    The region is the setting's, else the profile's, else the default; never the login's.
    """
    profile_arn = "" if credential.kind == "api_key" else credential.profile_arn
    return AccessToken(
        value=credential.secret,
        token_type=_TOKEN_TYPES[credential.kind],
        profile_arn=profile_arn,
        region=api_region or region_of(profile_arn) or DEFAULT_REGION,
        is_explicit=credential.is_explicit,
    )
