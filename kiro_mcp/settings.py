"""All settings: their environment variables, defaults and meanings.

`Settings.load` reads them from a mapping of environment variables. A `.env` file is read only if
the user asks for it: a server may be started in any folder, and a stranger's file there must not
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
    ProfileArn,
    Proxy,
    Region,
    Roots,
    Secret,
)
from kiro_mcp.wire.eventstream import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES
from kiro_mcp.wire.models import read_effort

PREFIX = "KIRO_MCP_"

_MOST = 1_000_000_000
"""The largest number that a setting may have, whatever it counts. As seconds it is 30 years."""

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
    """Declare a setting: its default, its variable, other names of the variable, its meaning."""
    alias = AliasChoices(name, *other_names) if other_names else name
    if most is None and (above, least) != (None, None):
        most = _MOST
    return Field(default, validation_alias=alias, description=says, gt=above, ge=least, le=most)


class Settings(BaseModel):
    """All settings. Fields are named as code reads them; aliases are the variables' names."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    # Credentials have the names that other Kiro programs use; all others start with KIRO_MCP_.
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
    profile_arn: ProfileArn = _setting(
        "",
        "KIRO_PROFILE_ARN",
        "PROFILE_ARN",
        says="The profile to bill; by default the login's own",
    )
    region: Region = _setting(
        "", "KIRO_REGION", says="Region of the sign-in, if the login does not name it"
    )
    api_region: Region = _setting(
        "",
        "KIRO_API_REGION",
        says="Region of the service; by default the one in the profile's ARN, else us-east-1",
    )
    home: PathText = _setting(
        "",
        "KIRO_MCP_HOME",
        says="Folder for login, conversations and token; by default in the system's data folder",
    )
    write_back: Annotated[Literal["own", "all"], AnyCaseLower] = _setting(
        "own",
        "KIRO_MCP_WRITE_BACK",
        says="Which logins are renewed: own, or also those of other programs (all)",
    )
    token_refresh_threshold_seconds: float = _setting(
        300.0,
        "KIRO_MCP_TOKEN_REFRESH_THRESHOLD",
        says="How many seconds before its end a token is renewed",
        above=0,
    )
    model: str = _setting(
        "",
        "KIRO_MCP_MODEL",
        says="The model if a call names none; by default the service's default, usually auto",
    )
    model_aliases: Aliases = _setting(
        {}, "KIRO_MCP_MODEL_ALIASES", says="Your own names for models: name=id, separated by commas"
    )
    thinking: Annotated[Effort, AfterValidator(read_effort)] = _setting(
        "",
        "KIRO_MCP_THINKING",
        says="Effort if a call names none: off low medium high xhigh max",
    )
    thinking_budget: int = _setting(
        4000,
        "KIRO_MCP_THINKING_BUDGET",
        says="Tokens for thinking, for models without effort levels",
        above=0,
    )
    thinking_handling: Annotated[
        Literal["separate", "remove", "inline", "strip_tags"], AnyCaseLower
    ] = _setting(
        "separate",
        "KIRO_MCP_THINKING_HANDLING",
        says="What to do with thinking: separate remove inline strip_tags",
    )
    text_tool_calls: bool = _setting(
        False,
        "KIRO_MCP_TEXT_TOOL_CALLS",
        says="Whether to read tool calls that the model writes as text",
    )
    tool_description_max_bytes: int = _setting(
        10000,
        "KIRO_MCP_TOOL_DESCRIPTION_MAX",
        says="Largest tool description in bytes; a longer one moves to the system prompt",
        above=0,
    )
    max_payload_bytes: int = _setting(
        0,
        "KIRO_MCP_MAX_PAYLOAD_BYTES",
        says="Largest request in bytes; above it the oldest turns are left out; 0 for no limit",
        least=0,
    )
    truncation_recovery: bool = _setting(
        True,
        "KIRO_MCP_TRUNCATION_RECOVERY",
        says="Whether to tell the model that its last answer was cut off",
    )
    tell_time: bool = _setting(
        False,
        "KIRO_MCP_TELL_TIME",
        says="Whether to tell the model the time; the service then caches no prompt",
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
        says="Headers to add or to replace, as a JSON object",
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
        says="Endpoints, the next if one is overloaded: runtime q amazonq codewhisperer",
    )
    endpoint_url: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL", says="Replaces all hosts of the service"
    )
    endpoint_url_runtime: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_RUNTIME", says="Replaces only the runtime host"
    )
    endpoint_url_management: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_MANAGEMENT", says="Replaces only the management host"
    )
    endpoint_url_q: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_Q", says="Replaces only the host of q and amazonq"
    )
    endpoint_url_codewhisperer: Endpoint = _setting(
        "",
        "KIRO_MCP_ENDPOINT_URL_CODEWHISPERER",
        says="Replaces only the codewhisperer host",
    )
    endpoint_url_oidc: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_OIDC", says="Replaces only the AWS sign-in host"
    )
    endpoint_url_auth: Endpoint = _setting(
        "", "KIRO_MCP_ENDPOINT_URL_AUTH", says="Replaces only Kiro's sign-in host"
    )
    connect_timeout_seconds: float = _setting(
        30.0, "KIRO_MCP_CONNECT_TIMEOUT", says="Seconds to wait for a connection", above=0
    )
    first_token_timeout_seconds: float = _setting(
        120.0,
        "KIRO_MCP_FIRST_TOKEN_TIMEOUT",
        says="Seconds to wait until an answer begins; 50 % more if the model thinks",
        above=0,
    )
    first_token_max_retries: int = _setting(
        1,
        "KIRO_MCP_FIRST_TOKEN_MAX_RETRIES",
        says="How often to try again if no answer began in time",
        least=0,
        most=_MOST_RETRIES,
    )
    stream_read_timeout_seconds: float = _setting(
        300.0,
        "KIRO_MCP_STREAM_READ_TIMEOUT",
        says="Seconds without data after which an answer ends",
        above=0,
    )
    max_frame_payload_bytes: int = _setting(
        MAX_PAYLOAD_BYTES,
        "KIRO_MCP_MAX_FRAME_PAYLOAD_BYTES",
        says="Largest payload of one frame, in bytes",
        above=0,
    )
    max_frame_headers_bytes: int = _setting(
        MAX_HEADERS_BYTES,
        "KIRO_MCP_MAX_FRAME_HEADERS_BYTES",
        says="Largest headers of one frame, in bytes",
        above=0,
    )
    store: Annotated[Literal["disk", "memory"], AnyCaseLower] = _setting(
        "disk", "KIRO_MCP_STORE", says="Where conversations and answers are stored: disk memory"
    )
    store_ttl_hours: float = _setting(
        168.0,
        "KIRO_MCP_STORE_TTL_HOURS",
        says="Hours after which an unused one is deleted",
        above=0,
    )
    wait_seconds: float = _setting(
        50.0,
        "KIRO_MCP_WAIT_SECONDS",
        says="Seconds until a call returns what has arrived, unless it sets `wait_seconds`;"
        " 0 waits to the end",
        least=0,
    )
    roots: Roots = _setting(
        (), "KIRO_MCP_ROOTS", says="Folders from which calls may read files and images, as in PATH"
    )
    max_retries: int = _setting(
        3,
        "KIRO_MCP_MAX_RETRIES",
        says="How often to try again after a failure before the answer began",
        least=0,
        most=_MOST_RETRIES,
    )
    base_retry_delay_seconds: float = _setting(
        1.0,
        "KIRO_MCP_BASE_RETRY_DELAY",
        says="Seconds before the first retry, then doubled; five times as long after an overload",
        above=0,
    )
    max_concurrency: int = _setting(
        4, "KIRO_MCP_MAX_CONCURRENCY", says="How many answers may run at once", least=1
    )
    max_credits_per_call: float = _setting(
        0.0,
        "KIRO_MCP_MAX_CREDITS_PER_CALL",
        says="Credits after which a call sends no further request; 0 for no limit",
        least=0,
    )
    max_credits_per_day: float = _setting(
        0.0,
        "KIRO_MCP_MAX_CREDITS_PER_DAY",
        says="Credits after which nothing is sent until the next day (UTC); 0 for no limit",
        least=0,
    )
    model_cache_ttl_seconds: float = _setting(
        3600.0,
        "KIRO_MCP_MODEL_CACHE_TTL",
        says="Seconds for which the list of models is cached",
        above=0,
    )
    host: str = _setting("127.0.0.1", "KIRO_MCP_HOST", says="Over HTTP: the address to listen on")
    port: Port = _setting(8000, "KIRO_MCP_PORT", says="Over HTTP: the port; 0 for any free one")
    http_token: Secret = _setting(
        SecretStr(""),
        "KIRO_MCP_HTTP_TOKEN",
        says="Over HTTP: the token that clients must send; by default a new one is saved in a file",
    )
    http_login: bool = _setting(
        False,
        "KIRO_MCP_HTTP_LOGIN",
        says="Over HTTP: whether any client may sign this server in and out with the tool login",
    )
    api: bool = _setting(
        False,
        "KIRO_MCP_API",
        says="Over HTTP: whether to serve OpenAI's and Anthropic's APIs at /v1",
    )
    max_body_bytes: int = _setting(
        32 * 1024 * 1024,
        "KIRO_MCP_MAX_BODY_BYTES",
        says="Over HTTP: the largest request body, in bytes",
        above=0,
    )
    allowed_hosts: str = _setting(
        "",
        "KIRO_MCP_ALLOWED_HOSTS",
        says="Over HTTP: host names of the server besides localhost, separated by commas",
    )
    depth: int = _setting(
        0,
        "KIRO_MCP_DEPTH",
        says="How deep this server is nested in calls of ask_claude; from 3 on it refuses them",
        least=0,
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], AnyCaseUpper] = _setting(
        "WARNING", "KIRO_MCP_LOG_LEVEL", says="What is logged to stderr: DEBUG INFO WARNING ERROR"
    )
    debug_mode: Annotated[Literal["off", "errors", "all"], AnyCaseLower] = _setting(
        "off",
        "KIRO_MCP_DEBUG_MODE",
        says="Which calls are recorded: off, errors (failed, cut off, with warnings), all",
    )
    debug_dir: PathText = _setting(
        "", "KIRO_MCP_DEBUG_DIR", says="Folder of the captures; by default `debug` in KIRO_MCP_HOME"
    )

    @property
    def allowed_host_names(self) -> tuple[str, ...]:
        """The host names by which clients may address the server, besides this machine's."""
        names = (name.strip() for name in self.allowed_hosts.split(","))
        return tuple(name for name in names if name)

    @property
    def endpoint_overrides(self) -> dict[str, str]:
        """The URLs that replace the service's hosts, by host; "" for no replacement."""
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
        """The endpoints to use, in this order."""
        return tuple(self.endpoints.split(","))

    @property
    def headers_to_add(self) -> dict[str, str]:
        """The headers to add to ours or to replace ours with."""
        return cast("dict[str, str]", json.loads(self.extra_headers.get_secret_value() or "{}"))

    def for_key(self, key: SecretStr) -> "Settings":
        """Return these settings with another account's key, without this machine's credentials."""
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
            InvalidRequest: A variable has an invalid value. The error says what it must be.
        """
        given = {name: value.strip() for name, value in environ.items() if value.strip()}
        try:
            settings = cls.model_validate(
                {name: given[name] for name in variables() if name in given}
            )
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
    alias = field.validation_alias
    return (
        [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]
    )


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each unknown `KIRO_MCP_*` variable, with a similar name if any."""
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
    return (
        f"it {plain}" if plain.startswith("must ") else f"it must be {plain[0].lower()}{plain[1:]}"
    )
