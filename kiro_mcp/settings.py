"""All settings: their environment variables, defaults and meanings.

`Settings.load` reads them from a mapping of environment variables. A `.env` file is read only if
the user asks for it: a server may be started in any folder, and a stranger's file there must not
redirect it. An empty variable counts as unset.

First come the types of settings: how each value is read, and the error if it is not valid.
"""

import base64
import difflib
import ipaddress
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, cast
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
)
from pydantic import ValidationError as PydanticError
from pydantic.fields import FieldInfo

from kiro_mcp.chat import Effort
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.redaction import redact, remember_secret
from kiro_mcp.regions import is_region, region_of
from kiro_mcp.wire.eventstream import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES
from kiro_mcp.wire.models import read_effort

PREFIX = "KIRO_MCP_"

_MOST = 1_000_000_000
"""The largest number that any setting may have. In seconds, it is 30 years."""

_NO_SECRET = SecretStr("")

_OF_THIS_MACHINE = (
    *("access_token", "refresh_token", "creds_file", "cli_db_file"),
    *("profile_arn", "region", "api_region", "home"),
)
"""The settings that a caller with its own API key must not use."""

ENDPOINT_NAMES = ("runtime", "kas", "q", "amazonq", "codewhisperer")
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


def _must(be: str, holds: Callable[[str], object]) -> Callable[[Any], Any]:
    """Return a validator that refuses each value for which `holds` is not true."""

    def check(given: Any) -> Any:
        text = given.get_secret_value() if isinstance(given, SecretStr) else given
        if not holds(text):
            raise ValueError(f"must {be}")
        return given

    return check


def _check_endpoint(url: str) -> str:
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
    if not _names_a_host(parts):
        raise ValueError("must be a URL with a host name and a port from 1 to 65535")
    return url.rstrip("/")


def _check_proxy(proxy: SecretStr) -> SecretStr:
    url = proxy.get_secret_value()
    url = url if "://" in url else f"http://{url}"
    try:
        is_valid = _names_a_host(urlsplit(url)) and url.startswith(_PROXY_SCHEMES)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("must be host:port, or an http, https, socks5 or socks5h URL")
    return SecretStr(url)


def _names_a_host(parts: SplitResult) -> bool:
    """Whether a URL has a valid host, and no port or a valid one."""
    host = parts.hostname or ""
    try:
        if parts.port == 0:
            return False
    except ValueError:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        return len(host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)
    return True


def _check_path(path: str) -> str:
    path = _unquote(path)
    if "\0" in path:
        raise ValueError("must be a path without a NUL character")
    if path.startswith("~") and path[1:2] not in ("", "/", "\\"):
        raise ValueError("must be a path; `~name` (the folder of another user) is not supported")
    return path


def _read_roots(given: str) -> tuple[str, ...]:
    """Read folders in the forms that people write: with `~`, in quotes, as `file://` URLs."""
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


def _read_names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _read_aliases(given: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in _read_names(given)]
    if any(not name.strip() or not model.strip() for name, _, model in pairs):
        raise ValueError("must be pairs of name=id, separated by commas")
    return {name.strip(): model.strip() for name, _, model in pairs}


def _check_names(names: str) -> str:
    given = _read_names(names.lower())
    if not given or not set(given) <= set(ENDPOINT_NAMES):
        raise ValueError(f"must be one or more of {', '.join(ENDPOINT_NAMES)}, with commas between")
    return ",".join(dict.fromkeys(given))


def _check_headers(headers: SecretStr) -> SecretStr:
    try:
        given = json.loads(headers.get_secret_value())
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

_check_credential = _must(
    "be the credential itself, but it is a placeholder: the program that starts this server did not"
    " fill it in, or it was copied from an example",
    lambda text: len(text) > _MAX_PLACEHOLDER or not _PLACEHOLDER.fullmatch(text),
)
_check_for_header = _must(
    "be printable ASCII text, because it is sent in a header", _HEADER_VALUE.fullmatch
)
_check_arn = _must(  # The service would only say "Improperly formed request".
    "be the ARN of a profile, in the form arn:aws:codewhisperer:REGION:ACCOUNT:profile/ID",
    region_of,
)


def _read_credential(text: str) -> str:
    """Remove what people copy with a credential: quotes, and the word `Bearer`."""
    text = text.strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        text = text[1:-1].strip()
    return re.sub(r"(?i)^bearer\s+", "", text)


def read_bearer(text: str) -> SecretStr:
    """Return the credential in a text, such as the value of a header.

    Raises:
        ValueError: The text is not a valid credential. The error says what it must be.
    """
    return _check_for_header(_check_credential(SecretStr(_read_credential(text))))


PathText = Annotated[str, AfterValidator(_check_path)]
AnyCaseLower = BeforeValidator(str.lower)
AnyCaseUpper = BeforeValidator(str.upper)
Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
Port = Annotated[int, Field(ge=0, le=65535)]
ProfileArn = Annotated[str, AfterValidator(_check_arn)]
Region = Annotated[str, AfterValidator(_must("be an AWS region such as us-east-1", is_region))]
EndpointNames = Annotated[str, AfterValidator(_check_names)]
HeaderText = Annotated[str, AfterValidator(_check_for_header)]
Secret = Annotated[SecretStr, BeforeValidator(_read_credential), AfterValidator(_check_credential)]
Bearer = Annotated[Secret, AfterValidator(_check_for_header)]
Headers = Annotated[SecretStr, AfterValidator(_check_headers)]
Proxy = Annotated[SecretStr, AfterValidator(_check_proxy)]
Roots = Annotated[tuple[str, ...], BeforeValidator(_read_roots)]
Names = Annotated[tuple[str, ...], BeforeValidator(_read_names)]
Aliases = Annotated[dict[str, str], BeforeValidator(_read_aliases)]
Duration = Annotated[float, Field(gt=0, le=_MOST)]
Amount = Annotated[float, Field(ge=0, le=_MOST)]
Size = Annotated[int, Field(gt=0, le=_MOST)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Retries = Annotated[int, Field(ge=0, le=100)]
AtLeastOne = Annotated[int, Field(ge=1, le=_MOST)]


_UNUSUAL_NAMES = {
    "api_key": ("KIRO_API_KEY",),
    "access_token": ("KIRO_ACCESS_TOKEN",),
    "refresh_token": ("KIRO_REFRESH_TOKEN", "REFRESH_TOKEN"),
    "creds_file": ("KIRO_CREDS_FILE",),
    "cli_db_file": ("KIRO_CLI_DB_FILE",),
    "profile_arn": ("KIRO_PROFILE_ARN", "PROFILE_ARN"),
    "region": ("KIRO_REGION",),
    "api_region": ("KIRO_API_REGION",),
    "tool_description_max_bytes": ("KIRO_MCP_TOOL_DESCRIPTION_MAX",),
    "proxy_url": ("KIRO_MCP_PROXY_URL", "VPN_PROXY_URL"),
    "wait_seconds": ("KIRO_MCP_WAIT_SECONDS",),
}
"""The variables whose names do not follow from their fields', mostly because others chose them."""


def _variables(field: str) -> AliasChoices:
    """Return the variables of a field. Usually their names do not have the unit of seconds."""
    usual = PREFIX + field.upper().removesuffix("_SECONDS")
    return AliasChoices(*_UNUSUAL_NAMES.get(field, (usual,)))


class Settings(BaseModel):
    """All settings. The variable of the field `max_retries` is KIRO_MCP_MAX_RETRIES, and so on."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        alias_generator=AliasGenerator(validation_alias=_variables),
    )

    # Credentials have the names that other Kiro programs use.
    api_key: Bearer = _NO_SECRET
    """API key made at app.kiro.dev (ksk_…)"""
    access_token: Bearer = _NO_SECRET
    """An access token, used as it is"""
    refresh_token: Secret = _NO_SECRET
    """A refresh token, bare or encoded (token, client id, client secret, method)"""
    creds_file: PathText = ""
    """A file with a login, such as the Kiro IDE's"""
    cli_db_file: PathText = ""
    """A database with a login: kiro-cli's or Amazon Q's"""
    profile_arn: ProfileArn = ""
    """The profile to bill; by default the login's own"""
    region: Region = ""
    """Region of the sign-in, if the login does not name it"""
    api_region: Region = ""
    """Region of the service; by default the one in the profile's ARN, else us-east-1"""
    home: PathText = ""
    """Folder for login, conversations and token; by default in the system's data folder"""
    write_back: Annotated[Literal["own", "all"], AnyCaseLower] = "own"
    """Which logins are renewed: own, or also those of other programs (all)"""
    token_refresh_threshold_seconds: Duration = 300.0
    """How many seconds before its end a token is renewed"""
    model: str = ""
    """The model if a call names none; by default the service's default, usually auto"""
    model_aliases: Aliases = {}
    """Your own names for models: name=id, separated by commas"""
    thinking: Annotated[Effort, AfterValidator(read_effort)] = ""
    """Effort if a call names none: off low medium high xhigh max"""
    thinking_budget: Size = 4000
    """Tokens for thinking, for models without effort levels"""
    thinking_handling: Annotated[
        Literal["separate", "remove", "inline", "strip_tags"], AnyCaseLower
    ] = "separate"
    """What to do with thinking: separate remove inline strip_tags"""
    text_tool_calls: bool = False
    """Whether to read tool calls that the model writes as text"""
    tool_description_max_bytes: Size = 10000
    """Largest tool description in bytes; a longer one moves to the system prompt"""
    max_payload_bytes: Count = 0
    """Largest request in bytes; above it the oldest turns are left out; 0 for no limit"""
    truncation_recovery: bool = True
    """Whether to tell the model that its last answer was cut off"""
    tell_time: bool = False
    """Whether to tell the model the time; the service then caches no prompt"""
    engine: Annotated[Literal["direct", "kiro-cli"], AnyCaseLower] = "direct"
    """What asks the service: direct (this server itself), kiro-cli (Kiro's program)"""
    kiro_cli: str = ""
    """For the engine kiro-cli: path or command line of the program; by default it is found"""
    origin: str = ""
    """The origin sent with requests; by default the endpoint's own"""
    user_agent: HeaderText = ""
    """The User-Agent; by default kiro-mcp and its version"""
    extra_headers: Headers = _NO_SECRET
    """Headers to add or to replace, as a JSON object"""
    proxy_url: Proxy = _NO_SECRET
    """HTTP or SOCKS proxy to the service; by default the environment's"""
    endpoints: EndpointNames = "runtime"
    """Endpoints, the next if one is overloaded: runtime kas q amazonq codewhisperer"""
    endpoint_url: Endpoint = ""
    """Replaces all hosts of the service"""
    endpoint_url_runtime: Endpoint = ""
    """Replaces only the runtime host"""
    endpoint_url_management: Endpoint = ""
    """Replaces only the management host"""
    endpoint_url_q: Endpoint = ""
    """Replaces only the host of q and amazonq"""
    endpoint_url_codewhisperer: Endpoint = ""
    """Replaces only the codewhisperer host"""
    endpoint_url_oidc: Endpoint = ""
    """Replaces only the AWS sign-in host"""
    endpoint_url_auth: Endpoint = ""
    """Replaces only Kiro's sign-in host"""
    connect_timeout_seconds: Duration = 30.0
    """Seconds to wait for a connection"""
    first_token_timeout_seconds: Duration = 120.0
    """Seconds to wait until an answer begins; 50 % more if the model thinks"""
    first_token_max_retries: Retries = 1
    """How often to try again if no answer began in time"""
    stream_read_timeout_seconds: Duration = 300.0
    """Seconds without data after which an answer ends"""
    max_frame_payload_bytes: Size = MAX_PAYLOAD_BYTES
    """Largest payload of one frame, in bytes"""
    max_frame_headers_bytes: Size = MAX_HEADERS_BYTES
    """Largest headers of one frame, in bytes"""
    store: Annotated[Literal["disk", "memory"], AnyCaseLower] = "disk"
    """Where conversations and answers are stored: disk memory"""
    store_ttl_hours: Duration = 168.0
    """Hours after which an unused one is deleted"""
    wait_seconds: Amount = 50.0
    """Seconds until a call returns what has arrived, unless it sets `wait_seconds`; 0 waits to the
    end"""
    roots: Roots = ()
    """Folders from which calls may read files and images, as in PATH"""
    max_retries: Retries = 3
    """How often to try again after a failure before the answer began"""
    base_retry_delay_seconds: Duration = 1.0
    """Seconds before the first retry, then doubled; five times as long after an overload"""
    max_concurrency: AtLeastOne = 4
    """How many answers may run at once"""
    max_credits_per_call: Amount = 0.0
    """Credits after which a call sends no further request; 0 for no limit"""
    max_credits_per_day: Amount = 0.0
    """Credits after which nothing is sent until the next day (UTC); 0 for no limit"""
    model_cache_ttl_seconds: Duration = 3600.0
    """Seconds for which the list of models is cached"""
    host: str = "127.0.0.1"
    """Over HTTP: the address to listen on"""
    port: Port = 8000
    """Over HTTP: the port; 0 for any free one"""
    http_token: Secret = _NO_SECRET
    """Over HTTP: the token that clients must send; by default a new one is saved in a file"""
    http_login: bool = False
    """Over HTTP: whether any client may sign this server in and out with the tool login"""
    api: bool = False
    """Over HTTP: whether to serve OpenAI's and Anthropic's APIs at /v1"""
    max_body_bytes: Size = 32 * 1024 * 1024
    """Over HTTP: the largest request body, in bytes"""
    allowed_hosts: Names = ()
    """Over HTTP: host names of the server besides localhost, separated by commas"""
    depth: Count = 0
    """How deep this server is nested in calls of ask_claude; from 3 on it refuses them"""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], AnyCaseUpper] = "WARNING"
    """What is logged to stderr: DEBUG INFO WARNING ERROR"""
    debug_mode: Annotated[Literal["off", "errors", "all"], AnyCaseLower] = "off"
    """Which calls are recorded: off, errors (failed, cut off, with warnings), all"""
    debug_dir: PathText = ""
    """Folder of the captures; by default `debug` in KIRO_MCP_HOME"""

    @cached_property
    def endpoint_overrides(self) -> dict[str, str]:
        """The URLs that replace the service's hosts, by host; "" for no replacement."""
        return self._overrides("runtime", "management", "q", "codewhisperer")

    @cached_property
    def sign_in_overrides(self) -> dict[str, str]:
        """The same for the hosts of sign-in and refresh."""
        return self._overrides("oidc", "auth")

    def _overrides(self, *hosts: str) -> dict[str, str]:
        return {host: getattr(self, f"endpoint_url_{host}") or self.endpoint_url for host in hosts}

    @cached_property
    def endpoint_names(self) -> tuple[str, ...]:
        """The endpoints to use, in this order."""
        return tuple(self.endpoints.split(","))

    @cached_property
    def headers_to_add(self) -> dict[str, str]:
        """The headers to add to ours or to replace ours with."""
        return cast("dict[str, str]", json.loads(self.extra_headers.get_secret_value() or "{}"))

    def for_key(self, key: SecretStr) -> "Settings":
        """Return these settings with another account's key, without this machine's credentials."""
        unset = {name: Settings.model_fields[name].default for name in _OF_THIS_MACHINE}
        return self.model_copy(update={**unset, "api_key": key})

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from environment variables.

        Raises:
            InvalidRequest: A variable has an invalid value. The error says what it must be.
        """
        given = {name: value.strip() for name, value in environ.items() if value.strip()}
        try:
            settings = cls.model_validate(given)
        except PydanticError as error:
            fault = error.errors(include_url=False, include_context=False)[0]
            name = str(fault["loc"][0])
            wanted = f"{_in_plain_words(fault['msg'])}{_quote_value(name, given[name])}"
            raise InvalidRequest(
                f"The setting {name} cannot be used: {wanted}.",
                next_step="Correct it where this server is configured and start it again.",
            ) from None
        for secret in settings.secrets:
            remember_secret(secret, is_lasting=True)
        return settings

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secrets in the settings, including those that are parts of a value."""
        proxy = urlsplit(self.proxy_url.get_secret_value())
        login = proxy.netloc.rpartition("@")[0]
        basic = base64.b64encode(unquote(login).encode()).decode()
        plain = (self.api_key, self.access_token, self.refresh_token, self.http_token)
        return (
            *(secret.get_secret_value() for secret in plain),
            *self.headers_to_add.values(),
            *((proxy.password or "", unquote(proxy.password or ""), basic) if login else ()),
        )


def variables() -> tuple[str, ...]:
    """Return all environment variables that settings read, in the order of declaration."""
    return tuple(name for field in Settings.model_fields.values() for name in _names(field))


def _names(field: FieldInfo) -> list[str]:
    assert isinstance(field.validation_alias, AliasChoices)
    return [str(name) for name in field.validation_alias.choices]


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each unknown `KIRO_MCP_*` variable, with a similar name if any."""
    known = variables()
    sentences: list[str] = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            sentences.append(f"No setting is named {name}.{hint}")
    return tuple(sentences)


def _quote_value(name: str, value: str) -> str:
    """Return the end of an error that quotes the value; "" if the value may hold a secret."""
    fields = Settings.model_fields.values()
    is_secret = any(field.annotation is SecretStr and name in _names(field) for field in fields)
    if is_secret or "//" in value or redact(value) != value:
        return ""
    return f", not {quoted(value)}"


def _in_plain_words(message: str) -> str:
    plain = message.removeprefix("Value error, ").removeprefix("Input should be ")
    plain = plain.partition(", unable to")[0]
    if plain.startswith("must "):
        return f"it {plain}"
    return f"it must be {plain[0].lower()}{plain[1:]}"
