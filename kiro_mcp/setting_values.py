"""The types of settings: how each value is read, and the error if it is not valid."""

import ipaddress
import json
import os
import re
from typing import Annotated, cast
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from kiro_mcp.regions import is_region, region_of

ENDPOINT_NAMES = ("runtime", "q", "amazonq", "codewhisperer")
"""The endpoints that answer prompts. `kiro_mcp.client.endpoints` describes them."""

_URL_TEXT = re.compile(r"[!-\[\]-~]+")
"""Printable ASCII without blanks and backslashes, which programs parse differently."""

_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_OUR_HEADERS = ("authorization", "connection", "content-length", "host", "transfer-encoding")
"""Headers that users may not set: another value would break a request, or change the account."""

_PROXY_SCHEMES = ("http://", "https://", "socks5://", "socks5h://")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_endpoint(url: str) -> str:
    if not url:
        return url
    wrong = ValueError("must be an https:// address, or http:// on this machine (127.0.0.1)")
    if not _URL_TEXT.fullmatch(url):
        raise wrong
    try:
        parts = urlsplit(url)
    except ValueError:
        raise wrong from None
    host = parts.hostname or ""
    is_allowed = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not host or not is_allowed:
        raise wrong
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL without user name, query and fragment")
    if not _is_host(host) or not _has_good_port(parts):
        raise ValueError("must be a URL with a host name and a port from 1 to 65535")
    return url.rstrip("/")


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        return len(host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)
    return True


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _check_path(path: str) -> str:
    path = _unquote(path)
    if "\0" in path:
        raise ValueError("must be a path without a NUL character")
    if path.startswith("~") and path[1:2] not in ("", "/", "\\"):
        raise ValueError("must be a path; `~name` (the folder of another user) is not supported")
    return path


def _lower(given: object) -> object:
    return given.strip().lower() if isinstance(given, str) else given


def _upper(given: object) -> object:
    return given.strip().upper() if isinstance(given, str) else given


def _check_region(region: str) -> str:
    if region and not is_region(region):
        raise ValueError("must be an AWS region such as us-east-1")
    return region


def _check_arn(arn: str) -> str:
    if arn and not region_of(arn):  # The service would only say "Improperly formed request".
        form = "arn:aws:codewhisperer:REGION:ACCOUNT:profile/ID"
        raise ValueError(f"must be the ARN of a profile, in the form {form}")
    return arn


def _read_aliases(given: object) -> object:
    if not isinstance(given, str):
        return given
    pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
    if any(not name.strip() or not model.strip() for name, _, model in pairs):
        raise ValueError("must be pairs of name=id, separated by commas")
    return {name.strip(): model.strip() for name, _, model in pairs}


def _read_roots(given: object) -> object:
    """Read folders in the forms that people write: with `~`, in quotes, as `file://` URLs."""
    if not isinstance(given, str):
        return given
    # If the separator is a colon, do not split at the colon of `file://`.
    parts = re.split(rf"(?<!\bfile){os.pathsep}|{os.pathsep}(?!//)", _unquote(given))
    return tuple(_read_root(part) for part in parts if part.strip())


def _read_root(given: str) -> str:
    path = _unquote(given)
    if path.lower().startswith("file:"):
        path = unquote(urlsplit(path).path)
        path = path[1:] if re.match(r"/[A-Za-z]:", path) else path  # `/C:/Users` on Windows.
    if "\0" in path:
        raise ValueError("must be folders without a NUL character")
    return os.path.expanduser(path)


def _unquote(text: str) -> str:
    text = text.strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip() if is_quoted and text[0] not in text[1:-1] else text


Roots = Annotated[tuple[str, ...], BeforeValidator(_read_roots)]
Aliases = Annotated[dict[str, str], BeforeValidator(_read_aliases)]


def _check_names(names: str) -> str:
    given = [name.strip().lower() for name in names.split(",") if name.strip()]
    if not given or not set(given) <= set(ENDPOINT_NAMES):
        raise ValueError(f"must be one or more of {', '.join(ENDPOINT_NAMES)}, with commas between")
    return ",".join(dict.fromkeys(given))


def _check_headers(headers: SecretStr) -> SecretStr:
    try:
        given = json.loads(headers.get_secret_value() or "{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ValueError('must be a JSON object such as {"X-Team": "blue"}')
    for name, value in cast("dict[str, object]", given).items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OUR_HEADERS:
            raise ValueError(f"must not hold a header {name!r}")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"must have printable ASCII text for the header {name!r}")
    return headers


def _check_for_header(text: str) -> str:
    if not _HEADER_VALUE.fullmatch(text):
        raise ValueError("must be printable ASCII text, because it is sent in a header")
    return text


_PLACEHOLDER = re.compile(
    r"""
    \$.* | %[^%|]+%                                         # $NAME, ${NAME}, %NAME%
    | .*\{\{.*\}\}.* | \{.*\} | <.*> | \[.*\]                # {{name}}, {env:NAME}, <name>, [name]
    | .*(?:\u2026|\.\.\.).* | (?:ksk[_-])?(?:[x*.]{4,}|0{8,})
    | (?:ksk[_-])?(?:your|my|insert|paste|replace|enter|example|placeholder|change)[-_\ ].*
    | (?:ksk[_-])?(?:changeme|placeholder)
    | [-\w\ ]*(?:api[-_\ ]?key|(?:access|refresh)[-_\ ]token)[-\w\ ]*
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""Placeholders that clients did not fill in, and values that people copied from examples."""


_MAX_PLACEHOLDER = 200


def _read_credential(given: object) -> object:
    """Remove what people copy with a credential: quotes, and the word `Bearer`."""
    if not isinstance(given, str):
        return given
    text = given.strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        text = text[1:-1].strip()
    return re.sub(r"(?i)^bearer\s+", "", text)


def _check_credential(credential: SecretStr) -> SecretStr:
    text = credential.get_secret_value()
    if len(text) <= _MAX_PLACEHOLDER and _PLACEHOLDER.fullmatch(text):
        raise ValueError(
            "must be the credential itself, but it is a placeholder: the program that starts this"
            " server did not fill it in, or it was copied from an example"
        )
    return credential


def _check_bearer(bearer: SecretStr) -> SecretStr:
    _check_for_header(_check_credential(bearer).get_secret_value())
    return bearer


def read_bearer(text: str) -> SecretStr:
    """Return the credential in a text, such as the value of a header.

    Raises:
        ValueError: The text is not a valid credential. The error says what it must be.
    """
    return _check_bearer(SecretStr(str(_read_credential(text))))


def _check_proxy(proxy: SecretStr) -> SecretStr:
    url = proxy.get_secret_value()
    if not url:
        return proxy
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        has_host = _is_host(parts.hostname or "") and _has_good_port(parts)
    except ValueError:
        has_host = False
    if not has_host or not url.startswith(_PROXY_SCHEMES):
        raise ValueError("must be host:port, or an http, https, socks5 or socks5h URL")
    return SecretStr(url)


PathText = Annotated[str, AfterValidator(_check_path)]
AnyCaseLower = BeforeValidator(_lower)
AnyCaseUpper = BeforeValidator(_upper)
Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
Port = Annotated[int, Field(ge=0, le=65535)]
ProfileArn = Annotated[str, AfterValidator(_check_arn)]
Region = Annotated[str, AfterValidator(_check_region)]
EndpointNames = Annotated[str, AfterValidator(_check_names)]
HeaderText = Annotated[str, AfterValidator(_check_for_header)]
Bearer = Annotated[SecretStr, BeforeValidator(_read_credential), AfterValidator(_check_bearer)]
Secret = Annotated[SecretStr, BeforeValidator(_read_credential), AfterValidator(_check_credential)]
Headers = Annotated[SecretStr, AfterValidator(_check_headers)]
Proxy = Annotated[SecretStr, AfterValidator(_check_proxy)]
