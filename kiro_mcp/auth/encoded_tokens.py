"""A refresh token with all that it needs in one text, as other tools write it. Pure.

::

    token                                          social
    token|desktop                                  social
    token|client id|client secret|idc              AWS SSO OIDC
    token|client id|token endpoint|external-idp    an organisation's own sign-in

Read from the right, so that a bar inside the token does no harm. Taken in, never written.
"""

from dataclasses import replace
from typing import Final

from kiro_mcp.auth.tokens import ClientRegistration, Credential

_SOCIAL: Final = ("desktop", "social", "google", "github")
_OIDC: Final = ("idc", "builder-id", "builder_id", "iam")
_EXTERNAL: Final = ("external-idp", "external_idp")


def decode_refresh_token(text: str, *, source: str, region: str = "") -> Credential:
    """Read an encoded, or a bare, refresh token."""
    bare = Credential(kind="social", refresh_token=text, region=region, source=source)
    rest, bar, method = text.rpartition("|")
    method = method.strip().lower()
    if bar and method in _SOCIAL:
        return replace(bare, refresh_token=rest)
    parts = rest.rsplit("|", 2)
    if len(parts) != 3 or method not in (*_OIDC, *_EXTERNAL):
        return bare
    token, client_id, last = parts
    if method in _EXTERNAL:
        client = ClientRegistration(client_id=client_id)
        return replace(
            bare, kind="external_idp", refresh_token=token, client=client, token_endpoint=last
        )
    client = ClientRegistration(client_id=client_id, client_secret=last)
    kind = "builder_id" if method.startswith("builder") else "idc"
    return replace(bare, kind=kind, refresh_token=token, client=client)
