"""The rows of kiro-cli's database (and of its forerunner's), into credentials. Pure.

The table `auth_kv` holds JSON under the keys below; `odic` is the vendor's own spelling. `state`
holds the profile, as bytes. A registration belongs to the token with the same prefix only: a
stale one of the forerunner would make every refresh fail.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from kiro_mcp.auth.credential_files import (
    Place,
    parse_object,
    read_credential,
    read_registration_file,
    text_of,
)
from kiro_mcp.auth.tokens import BUILDER_ID_START_URL, ClientRegistration, Credential

TOKEN_KEYS: Final = (
    "kirocli:social:token",
    "kirocli:odic:token",
    "kirocli:external-idp:token",
    "codewhisperer:odic:token",
)
PROFILE_KEY: Final = "api.codewhisperer.profile"
STATE_KEYS: Final = (PROFILE_KEY, "auth.idc.start-url", "auth.idc.region")

_DEFAULTS: Final[Mapping[str, dict[str, object]]] = {
    "social": {"auth_method": "social"},
    "odic": {"auth_method": "idc"},
    "external-idp": {"auth_method": "external_idp"},
}

Rows = Mapping[str, str | bytes]


def registration_key(token_key: str) -> str:
    """Return the key of the registration that belongs to a token; "" where it has none."""
    prefix, family, _ = token_key.split(":")
    return f"{prefix}:odic:device-registration" if family == "odic" else ""


def credentials_in(rows: Rows, state: Rows, place: Place) -> list[Credential]:
    """Read every credential that the rows hold; a row that cannot be read is as if not there."""
    found = (_credential(key, rows, state, place) for key in TOKEN_KEYS if key in rows)
    return [credential for credential in found if credential]


def best(credentials: Sequence[Credential], now: datetime) -> Credential | None:
    """Choose where there are several: one that is good now, then the one that ends last."""
    return max(credentials, key=lambda one: (one.is_usable(now), _end(one)), default=None)


def _end(credential: Credential) -> float:
    return credential.expires_at.timestamp() if credential.expires_at else 0.0


def _credential(key: str, rows: Rows, state: Rows, place: Place) -> Credential | None:
    family = key.split(":")[1]
    document = {**_object(rows, key), **_DEFAULTS[family]}
    client = _object(rows, registration_key(key))
    registration = read_registration_file(client)
    if family == "odic":
        # A login without a start URL is Builder ID's.
        document["start_url"] = text_of(document, "start_url") or BUILDER_ID_START_URL
        document["region"] = (
            text_of(document, "region")
            or (registration.region if registration else "")
            or _quoted(state, "auth.idc.region")
        )
    try:
        found = read_credential(document, replace(place, key=key), registration)
    except ValueError:
        return None
    if found is None:
        return None
    profile_arn = found.profile_arn or text_of(_object(state, PROFILE_KEY), "arn")
    problem = found.problem or _mismatch(found, registration) or _other_flow(document, client)
    return replace(found, profile_arn=profile_arn, problem=problem)


def _mismatch(found: Credential, registration: ClientRegistration | None) -> str:
    if registration and registration.region and found.region not in ("", registration.region):
        return f"its client is registered in {registration.region}, not in {found.region}"
    return ""


def _other_flow(document: Mapping[str, object], client: Mapping[str, object]) -> str:
    """A client is registered for one way to sign in; the same one is spelt `Pkce` and `PKCE`."""
    flows = [text_of(one, "oauth_flow").lower() for one in (document, client)]
    is_other = all(flows) and flows[0] != flows[1]
    return "its client is registered for another way to sign in" if is_other else ""


def _object(rows: Rows, key: str) -> dict[str, object]:
    try:
        return parse_object(rows.get(key, "null"))
    except ValueError:  # Malformed, or the literal `null`, which means "signed out".
        return {}


def _quoted(rows: Rows, key: str) -> str:
    value = rows.get(key, b"")
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return text.strip().strip('"')
