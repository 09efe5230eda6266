"""Every setting, once: its environment variables, its default and its meaning.

Settings come from a mapping of environment variables, which is a parameter; no `.env` file is
read unasked, because a server is started in any folder and a stranger's file there must not
redirect it. An empty variable counts as unset.
"""

import base64
import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, SecretStr
from pydantic import ValidationError as PydanticError
from pydantic.fields import FieldInfo

from kiro_mcp.chat import Effort
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.redaction import redact, remember_secret
from kiro_mcp.setting_values import (
    Aliases,
    AnyCaseLower,
    AnyCaseUpper,
    Bearer,
    Endpoint,
    EndpointNames,
    Headers,
    HeaderText,
    PathText,
    Port,
    Proxy,
    Region,
    Roots,
    Secret,
)
from kiro_mcp.wire.eventstream import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES
from kiro_mcp.wire.models import read_effort

PREFIX = "KIRO_MCP_"

_MOST = 1_000_000_000
"""The largest number of seconds (30 years), bytes or anything else that a setting takes."""

_MOST_RETRIES = 100


def _setting(
    default: Any,
    name: str,
    *other_names: str,
    says: str,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """Declare a setting: its default, its variable, the variable's aliases, its meaning."""
    alias = AliasChoices(name, *other_names) if other_names else name
    if most is None and (above, least) != (None, None):
        most = _MOST
    return Field(default, validation_alias=alias, description=says, gt=above, ge=least, le=most)


class Settings(BaseModel):
    """All settings. Fields are named as code reads them; aliases are the variables' names."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    # The credential names are the ecosystem's; everything else starts with KIRO_MCP_.
    api_key: Bearer = _setting(
        SecretStr(""), "KIRO_API_KEY", says="API key made at app.kiro.dev (ksk_…)"
    )
    access_token: Bearer = _setting(
        SecretStr(""), "KIRO_ACCESS_TOKEN", says="An access token, used as it is"
    )
    refresh_token: Secret = _setting(
        SecretStr(""),
        "KIRO_REFRESH_TOKEN",
        "REFRESH_TOKEN",
        says="A refresh token, bare or encoded (token, client id, client secret, method)",
    )
    creds_file: PathText = _setting(
        "", "KIRO_CREDS_FILE", says="A file with a login, such as the Kiro IDE's"
    )
    cli_db_file: PathText = _setting(
        "", "KIRO_CLI_DB_FILE", says="A database with a login: kiro-cli's or Amazon Q's"
    )
    profile_arn: str = _setting(
        "",
        "KIRO_PROFILE_ARN",
        "PROFILE_ARN",
        says="The profile to bill; by default the login's own",
    )
    region: Region = _setting(
        "", "KIRO_REGION", says="Region of the sign-in, where a login does not name it"
    )
    api_region: Region = _setting(
        "",
        "KIRO_API_REGION",
        says="Region of the service; by default the one in the profile's ARN, else us-east-1",
    )
    home: PathText = _setting(
        "",
        "KIRO_MCP_HOME",
        says="Where login, conversations and token are kept; by default the system's data folder",
    )
    write_back: Annotated[Literal["own", "all"], AnyCaseLower] = _setting(
        "own",
        "KIRO_MCP_WRITE_BACK",
        says="Whose logins are renewed: own, or other programs' too (all)",
    )
    token_refresh_threshold_seconds: float = _setting(
        300.0,
        "KIRO_MCP_TOKEN_REFRESH_THRESHOLD",
        says="Seconds before its end from which a token is renewed",
        above=0,
    )
    model: str = _setting(
        "",
        "KIRO_MCP_MODEL",
        says="The model where a call names none; by default the service's own, usually auto",
    )
    model_aliases: Aliases = _setting(
        {}, "KIRO_MCP_MODEL_ALIASES", says="Your own names of models: name=id, separated by commas"
    )
    thinking: Annotated[Effort, AfterValidator(read_effort)] = _setting(
        "",
        "KIRO_MCP_THINKING",
        says="Effort where a call names none: off low medium high xhigh max",
    )
    thinking_budget: int = _setting(
        4000,
        "KIRO_MCP_THINKING_BUDGET",
        says="Tokens for thinking, for models without efforts",
        above=0,
    )
    thinking_handling: Annotated[
        Literal["separate", "remove", "inline", "strip_tags"], AnyCaseLower
    ] = _setting(
        "separate",
        "KIRO_MCP_THINKING_HANDLING",
        says="What becomes of thinking: separate remove inline strip_tags",
    )
    text_tool_calls: bool = _setting(
        False, "KIRO_MCP_TEXT_TOOL_CALLS", says="Whether tool calls written as text are read"
    )
    tool_description_max_bytes: int = _setting(
        10000,
        "KIRO_MCP_TOOL_DESCRIPTION_MAX",
        says="Bytes of a tool's description; a longer one goes to the system prompt",
        above=0,
    )
    max_payload_bytes: int = _setting(
        0,
        "KIRO_MCP_MAX_PAYLOAD_BYTES",
        says="Bytes over which the oldest turns are left out; 0 is off",
        least=0,
    )
    truncation_recovery: bool = _setting(
        True,
        "KIRO_MCP_TRUNCATION_RECOVERY",
        says="Whether the model is told of an answer of its own that was cut off",
    )
    tell_time: bool = _setting(
        False,
        "KIRO_MCP_TELL_TIME",
        says="Whether the model is told the time; the service then caches no prompt",
    )
    origin: str = _setting(
        "", "KIRO_MCP_ORIGIN", says="The origin sent with requests; by default the endpoint's own"
    )
    user_agent: HeaderText = _setting(
        "", "KIRO_MCP_USER_AGENT", says="The User-Agent; by default kiro-mcp and its version"
    )
    extra_headers: Headers = _setting(
        SecretStr(""),
        "KIRO_MCP_EXTRA_HEADERS",
        says="Headers to send besides or instead of ours, as a JSON object",
    )
    proxy_url: Proxy = _setting(
        SecretStr(""),
        "KIRO_MCP_PROXY_URL",
        "VPN_PROXY_URL",
        says="HTTP or SOCKS proxy to the service; by default the environment's",
    )
    endpoints: EndpointNames = _setting(
        "runtime",
        "KIRO_MCP_ENDPOINTS",
        says="Endpoints to ask, the next where one is overloaded: runtime q amazonq codewhisperer",
    )
    endpoint_url: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL", says="Takes the place of every host of the service"
    )
    endpoint_url_runtime: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_RUNTIME", says="Takes the place of the runtime host alone"
    )
    endpoint_url_management: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_MANAGEMENT", says="Takes the place of the management host alone"
    )
    endpoint_url_q: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_Q", says="Takes the place of the host of q and amazonq alone"
    )
    endpoint_url_codewhisperer: Endpoint = _setting(
        "",
        "KIRO_MCP_ENDPOINT_URL_CODEWHISPERER",
        says="Takes the place of the codewhisperer host alone",
    )
    endpoint_url_oidc: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_OIDC", says="Takes the place of the AWS sign-in host alone"
    )
    endpoint_url_auth: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_AUTH", says="Takes the place of Kiro's sign-in host alone"
    )
    connect_timeout_seconds: float = _setting(
        30.0, "KIRO_MCP_CONNECT_TIMEOUT", says="Seconds to wait for a connection", above=0
    )
    first_token_timeout_seconds: float = _setting(
        120.0,
        "KIRO_MCP_FIRST_TOKEN_TIMEOUT",
        says="Seconds to wait for an answer to begin, and half as many more if it thinks",
        above=0,
    )
    first_token_max_retries: int = _setting(
        1,
        "KIRO_MCP_FIRST_TOKEN_MAX_RETRIES",
        says="How often to ask again when no answer began in time",
        least=0,
        most=_MOST_RETRIES,
    )
    stream_read_timeout_seconds: float = _setting(
        300.0, "KIRO_MCP_STREAM_READ_TIMEOUT", says="Seconds of silence that end an answer", above=0
    )
    max_frame_payload_bytes: int = _setting(
        MAX_PAYLOAD_BYTES,
        "KIRO_MCP_MAX_FRAME_PAYLOAD_BYTES",
        says="Bytes of one frame's payload that are taken",
        above=0,
    )
    max_frame_headers_bytes: int = _setting(
        MAX_HEADERS_BYTES,
        "KIRO_MCP_MAX_FRAME_HEADERS_BYTES",
        says="Bytes of one frame's headers that are taken",
        above=0,
    )
    store: Annotated[Literal["disk", "memory"], AnyCaseLower] = _setting(
        "disk", "KIRO_MCP_STORE", says="Where conversations and answers are kept: disk memory"
    )
    store_ttl_hours: float = _setting(
        168.0, "KIRO_MCP_STORE_TTL_HOURS", says="Hours for which an unused one is kept", above=0
    )
    wait_seconds: float = _setting(
        50.0,
        "KIRO_MCP_WAIT_SECONDS",
        says="Seconds until a call returns what has come so far, unless it gives `wait_seconds`;"
        " 0 waits to the end",
        least=0,
    )
    roots: Roots = _setting(
        (), "KIRO_MCP_ROOTS", says="Folders that calls may read files and images from, as in PATH"
    )
    max_retries: int = _setting(
        3,
        "KIRO_MCP_MAX_RETRIES",
        says="How often to try again what failed before an answer began",
        least=0,
        most=_MOST_RETRIES,
    )
    base_retry_delay_seconds: float = _setting(
        1.0,
        "KIRO_MCP_BASE_RETRY_DELAY",
        says="Seconds, doubled each time, to wait before that; five times as long when overloaded",
        above=0,
    )
    max_concurrency: int = _setting(
        4, "KIRO_MCP_MAX_CONCURRENCY", says="How many answers may be on their way at once", least=1
    )
    max_credits_per_call: float = _setting(
        0.0,
        "KIRO_MCP_MAX_CREDITS_PER_CALL",
        says="Credits after which a call sends nothing more; 0 is no limit",
        least=0,
    )
    max_credits_per_day: float = _setting(
        0.0,
        "KIRO_MCP_MAX_CREDITS_PER_DAY",
        says="Credits after which nothing is sent until the next day (UTC); 0 is no limit",
        least=0,
    )
    model_cache_ttl_seconds: float = _setting(
        3600.0,
        "KIRO_MCP_MODEL_CACHE_TTL",
        says="Seconds for which a list of models is kept",
        above=0,
    )
    host: str = _setting("127.0.0.1", "KIRO_MCP_HOST", says="Over HTTP: the address to listen on")
    port: Port = _setting(8000, "KIRO_MCP_PORT", says="Over HTTP: the port; 0 for any free one")
    http_token: Secret = _setting(
        SecretStr(""),
        "KIRO_MCP_HTTP_TOKEN",
        says="Over HTTP: the token that clients send; by default one is made and kept in a file",
    )
    http_login: bool = _setting(
        False,
        "KIRO_MCP_HTTP_LOGIN",
        says="Over HTTP: whether any client may sign this server in and out with the tool login",
    )
    api: bool = _setting(
        False,
        "KIRO_MCP_API",
        says="Over HTTP: whether OpenAI's and Anthropic's APIs are served at /v1, too",
    )
    max_body_bytes: int = _setting(
        32 * 1024 * 1024,
        "KIRO_MCP_MAX_BODY_BYTES",
        says="Over HTTP: the largest request that is read",
        above=0,
    )
    allowed_hosts: str = _setting(
        "",
        "KIRO_MCP_ALLOWED_HOSTS",
        says="Over HTTP: names that clients may call the server by, besides localhost; commas"
        " between",
    )
    depth: int = _setting(
        0,
        "KIRO_MCP_DEPTH",
        says="How deep this server is nested in calls of ask_claude; from 3 on it asks no more",
        least=0,
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], AnyCaseUpper] = _setting(
        "WARNING", "KIRO_MCP_LOG_LEVEL", says="What is logged to stderr: DEBUG INFO WARNING ERROR"
    )
    debug_mode: Annotated[Literal["off", "errors", "all"], AnyCaseLower] = _setting(
        "off",
        "KIRO_MCP_DEBUG_MODE",
        says="Which calls are written down: off, errors (failed, cut off, with warnings), all",
    )
    debug_dir: PathText = _setting(
        "", "KIRO_MCP_DEBUG_DIR", says="Folder of the captures; by default `debug` in KIRO_MCP_HOME"
    )

    @property
    def allowed_host_names(self) -> tuple[str, ...]:
        """The names by which clients may call the server, besides this machine's."""
        names = (name.strip() for name in self.allowed_hosts.split(","))
        return tuple(name for name in names if name)

    @property
    def endpoint_overrides(self) -> dict[str, str]:
        """The addresses that take the place of the service's hosts, by host."""
        own = {
            "runtime": self.endpoint_url_runtime,
            "management": self.endpoint_url_management,
            "q": self.endpoint_url_q,
            "codewhisperer": self.endpoint_url_codewhisperer,
        }
        return {host: url or self.endpoint_url for host, url in own.items()}

    @property
    def sign_in_overrides(self) -> dict[str, str]:
        """The same for the hosts of sign-in and refresh."""
        own = {"oidc": self.endpoint_url_oidc, "auth": self.endpoint_url_auth}
        return {host: url or self.endpoint_url for host, url in own.items()}

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        """The endpoints to ask, in this order."""
        return tuple(self.endpoints.split(","))

    @property
    def headers_to_add(self) -> dict[str, str]:
        """The headers to send besides or instead of ours."""
        return cast("dict[str, str]", json.loads(self.extra_headers.get_secret_value() or "{}"))

    def for_key(self, key: SecretStr) -> "Settings":
        """Return these settings for another account: its key, and nothing of this machine's."""
        nothing = SecretStr("")
        return self.model_copy(
            update={
                "api_key": key,
                "access_token": nothing,
                "refresh_token": nothing,
                "creds_file": "",
                "cli_db_file": "",
                "profile_arn": "",
                "region": "",
                "api_region": "",
                "home": "",
            }
        )

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from environment variables.

        Raises:
            InvalidRequest: A variable's value cannot be used; names it and what it must be.
        """
        given = {name: value.strip() for name, value in environ.items() if value.strip()}
        try:
            settings = cls.model_validate(
                {name: given[name] for name in variables() if name in given}
            )
        except PydanticError as error:
            fault = error.errors(include_url=False, include_context=False)[0]
            name = str(fault["loc"][0])
            wanted = f"{_in_plain_words(fault['msg'])}{_but_is(name, given[name])}"
            raise InvalidRequest(
                f"The setting {name} cannot be used: {wanted}.",
                next_step="Correct it where this server is configured and start it again.",
            ) from None
        for secret in settings.secrets:
            remember_secret(secret, is_lasting=True)
        return settings

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret in the settings, also those that are parts of a value."""
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
    """Every environment variable that a setting reads, in the order of declaration."""
    return tuple(name for field in Settings.model_fields.values() for name in _names(field))


def _names(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    return (
        [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]
    )


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each `KIRO_MCP_*` variable that no setting reads, with a likely name."""
    known = variables()
    return tuple(
        _did_you_mean(name, known)
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known
    )


def _did_you_mean(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"No setting is named {name}.{hint}"


def _but_is(name: str, value: str) -> str:
    """Quote the value, unless it is a secret or an address, which may hold one."""
    fields = Settings.model_fields.values()
    is_secret = any(field.annotation is SecretStr and name in _names(field) for field in fields)
    if is_secret or "//" in value or redact(value) != value:
        return ""
    return f", not {quoted(value)}"


def _in_plain_words(message: str) -> str:
    plain = message.removeprefix("Value error, ").removeprefix("Input should be ")
    plain = plain.partition(", unable to")[0]
    return (
        f"it {plain}" if plain.startswith("must ") else f"it must be {plain[0].lower()}{plain[1:]}"
    )
