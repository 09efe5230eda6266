"""Settings: read from a mapping, refused in words, listed once in docs/settings.md."""

import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.settings import Settings, is_loopback, unknown_variables, variables
from tests.support.settings import meanings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"


def test_an_empty_variable_counts_as_unset() -> None:
    """Clients write `"KEY": ""` for what they do not set."""
    settings = Settings.load({"KIRO_MCP_MODEL": "  ", "KIRO_API_KEY": ""})
    assert settings.model == ""
    assert settings.api_key.get_secret_value() == ""


def test_a_setting_can_have_the_name_that_other_gateways_use() -> None:
    """Users of other gateways have set it already."""
    arn = "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE"
    assert Settings.load({"PROFILE_ARN": arn}).profile_arn == arn
    assert Settings.load({"REFRESH_TOKEN": "aorX"}).refresh_token.get_secret_value() == "aorX"


def test_our_name_of_a_setting_wins_over_the_name_of_other_gateways() -> None:
    """The more specific name is the more deliberate one."""
    settings = Settings.load({"REFRESH_TOKEN": "aorTheirs", "KIRO_REFRESH_TOKEN": "aorOurs"})
    assert settings.refresh_token.get_secret_value() == "aorOurs"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("KIRO_MCP_CONNECT_TIMEOUT", "soon", "valid number"),
        ("KIRO_MCP_CONNECT_TIMEOUT", "0", "greater than 0"),
        ("KIRO_MCP_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("KIRO_MCP_ENDPOINT_URL", "http://example.com", "https://"),
        ("KIRO_MCP_ENDPOINT_URL", "ftp://127.0.0.1", "https://"),
        ("KIRO_MCP_ENDPOINT_URL", "https://", "https://"),
        ("KIRO_MCP_ENDPOINT_URL_RUNTIME", "https://user:word@example.com", "user name"),
        ("KIRO_MCP_ENDPOINT_URL_MANAGEMENT", "https://example.com/?a=b", "query"),
        ("KIRO_MCP_MODEL_ALIASES", "fast", "name=id"),
        ("KIRO_API_REGION", "us-east-1/../evil.example", "AWS region"),
        ("KIRO_PROFILE_ARN", "arn:x", "the ARN of a profile"),
        ("KIRO_MCP_ENDPOINTS", "runtime,elsewhere", "runtime, kas, q, amazonq, codewhisperer"),
        ("KIRO_MCP_ENDPOINTS", ",", "runtime, kas, q, amazonq, codewhisperer"),
        ("KIRO_API_KEY", "ksk_grüße", "printable"),
        ("KIRO_ACCESS_TOKEN", "aoa\r\nX-B: b", "printable"),
        ("KIRO_MCP_USER_AGENT", "grüße", "printable"),
        ("KIRO_MCP_EXTRA_HEADERS", "X-Team: blue", "JSON object"),
        ("KIRO_MCP_EXTRA_HEADERS", '["X-Team"]', "JSON object"),
        (
            "KIRO_MCP_EXTRA_HEADERS",
            '{"Authorization": "x"}',
            ": it must not hold a header 'Authorization'.",
        ),
        ("KIRO_MCP_EXTRA_HEADERS", '{"X-A": "a\\r\\nX-B: b"}', "printable"),
        ("KIRO_MCP_EXTRA_HEADERS", '{"X-A": 1}', "printable"),
        ("KIRO_MCP_PROXY_URL", "ftp://proxy.example", "socks5"),
        ("KIRO_MCP_PROXY_URL", "http://", "host:port"),
        ("KIRO_MCP_PROXY_URL", "host:99999999", "host:port"),
        ("KIRO_MCP_MAX_CONCURRENCY", "0", "greater than or equal to 1"),
        ("KIRO_MCP_MAX_RETRIES", "many", "must be a valid integer, not 'many'. "),
        ("KIRO_MCP_MAX_RETRIES", "-1", "greater than or equal to 0"),
        ("KIRO_MCP_MAX_RETRIES", "101", "less than or equal to 100"),
        ("KIRO_MCP_MAX_PAYLOAD_BYTES", "-1", "greater than or equal to 0"),
        ("KIRO_MCP_MODEL_CACHE_TTL", "inf", "finite number, not 'inf'"),
        ("KIRO_MCP_MODEL_CACHE_TTL", "1e300", "less than or equal to 1000000000"),
        ("KIRO_MCP_MAX_CREDITS_PER_DAY", "nan", "finite number"),
        ("KIRO_MCP_MODEL_CACHE_TTL", "x" * 1000, f"not '{'x' * 80}…'"),
        ("KIRO_MCP_ENDPOINT_URL", "https://localhost:99999", "port from 1 to 65535"),
        ("KIRO_MCP_ENDPOINT_URL", "https://localhost:0", "port from 1 to 65535"),
        ("KIRO_MCP_ENDPOINT_URL", "http://127.0.0.1:80:80", "port from 1 to 65535"),
        ("KIRO_MCP_ENDPOINT_URL", "https://a..example", "a host name"),
        ("KIRO_MCP_ENDPOINT_URL", "https://-a.example", "a host name"),
        ("KIRO_MCP_ENDPOINT_URL", f"https://{'a' * 64}.example", "a host name"),
        ("KIRO_MCP_ENDPOINT_URL", "https://evil.example\\.kiro.dev", "https://"),
        ("KIRO_MCP_ENDPOINT_URL", "https://a b.example", "https://"),
        ("KIRO_MCP_ENDPOINT_URL", "https://bücher.example", "https://"),
        ("KIRO_MCP_ENDPOINT_URL", "https://[::1", "https://"),
        ("KIRO_MCP_ENDPOINT_URL", "https://@a.example", "user name"),
        ("KIRO_MCP_PROXY_URL", "http://a..example:1", "host:port"),
        ("KIRO_MCP_PROXY_URL", "http://127.0.0.1:80:80", "host:port"),
        ("KIRO_MCP_HOME", "~nosuchuser/x", "another user"),
        ("KIRO_MCP_DEBUG_DIR", "a\0b", "NUL"),
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_its_variable(
    name: str, value: str, says: str
) -> None:
    """The user reads the message in a chat and must know which line to correct."""
    with pytest.raises(InvalidRequest) as caught:
        Settings.load({name: value})
    assert name in str(caught.value)
    assert says in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("name", ["KIRO_API_KEY", "KIRO_ACCESS_TOKEN", "KIRO_REFRESH_TOKEN"])
@pytest.mark.parametrize(
    "value",
    [
        "$KIRO_API_KEY",
        "${KIRO_API_KEY}",
        "${input:kiro-key}",
        "${env:KIRO_API_KEY:-}",
        "$(cat key)",
        "%KIRO_API_KEY%",
        "{{KIRO_API_KEY}}",
        "Bearer {{ secrets.kiro }}",
        "{env:KIRO_API_KEY}",
        "<your key>",
        "'<KIRO_API_KEY>'",
        "[API KEY]",
        "ksk_your_key",
        "ksk_…",
        "ksk_...",
        "ksk_xxxxxxxx",
        "YOUR_API_KEY",
        "your-kiro-api-key-here",
        "KIRO_API_KEY",
        "changeme",
        "********",
    ],
)
def test_a_placeholder_is_refused_as_a_credential(name: str, value: str) -> None:
    """Clients pass on placeholders that they do not fill in, and people copy examples."""
    with pytest.raises(InvalidRequest, match=f"{name} .*placeholder"):
        Settings.load({name: value})


@pytest.mark.parametrize(
    "value",
    [
        '"ksk_abc"',
        "'ksk_abc'",
        "Bearer ksk_abc",
        "bearer  ksk_abc",
        '"Bearer ksk_abc"',
        " `ksk_abc` ",
    ],
)
def test_quotes_and_the_word_bearer_around_a_credential_are_removed(value: str) -> None:
    for name in ("KIRO_API_KEY", "KIRO_ACCESS_TOKEN", "KIRO_REFRESH_TOKEN"):
        settings = Settings.load({name: value})
        found = (settings.api_key, settings.access_token, settings.refresh_token)
        assert [one.get_secret_value() for one in found if one.get_secret_value()] == ["ksk_abc"]


@pytest.mark.parametrize("written", ["~/proj", '"~/proj"', " ~/proj "])
def test_a_tilde_in_a_root_is_the_home_folder(written: str) -> None:
    assert Settings.load({"KIRO_MCP_ROOTS": written}).roots == (str(Path.home() / "proj"),)


def test_the_examples_of_this_project_are_placeholders() -> None:
    root = Path(__file__).parent.parent
    for file in ("README.md", "mcp.json.example", "packaging/server.json"):
        shown = re.findall(r"ksk_\w+|ksk_\u2026", (root / file).read_text("utf-8"))
        assert shown, file
        for value in shown:
            with pytest.raises(InvalidRequest, match="placeholder"):
                Settings.load({"KIRO_API_KEY": value})


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=24))
def test_a_key_is_never_taken_for_a_placeholder(random: str) -> None:
    assume(len(set(random)) > 4)
    key = f"ksk_{random}"
    assert Settings.load({"KIRO_API_KEY": key}).api_key.get_secret_value() == key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KIRO_API_KEY", "hunter2…"),
        ("KIRO_MCP_EXTRA_HEADERS", "X-Team: hunter2"),
        ("KIRO_MCP_PROXY_URL", "ftp://me:hunter2@proxy.example"),
        ("VPN_PROXY_URL", "ftp://me:hunter2@proxy.example"),
        ("KIRO_MCP_ENDPOINT_URL", "https://me:hunter2@example.com"),
        ("KIRO_MCP_ENDPOINT_URL_Q", "https://example.com/?token=hunter2"),
        ("KIRO_MCP_PORT", "ksk_hunter2"),
    ],
)
def test_a_refused_value_that_may_be_secret_is_not_shown(name: str, value: str) -> None:
    """The message goes into a chat, and secrets do get pasted into the wrong line."""
    with pytest.raises(InvalidRequest) as caught:
        Settings.load({name: value})
    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8787", "http://[::1]:1", "http://localhost", "https://proxy.example"]
)
def test_an_endpoint_is_https_or_http_on_this_machine(url: str) -> None:
    """A bearer must not cross a network in the clear."""
    assert Settings.load({"KIRO_MCP_ENDPOINT_URL": url + "/"}).endpoint_url == url


def test_words_are_read_in_any_case_and_paths_without_quotes() -> None:
    settings = Settings.load(
        {
            "KIRO_MCP_LOG_LEVEL": "debug",
            "KIRO_MCP_DEBUG_MODE": "All",
            "KIRO_MCP_STORE": "MEMORY",
            "KIRO_MCP_WRITE_BACK": "Own",
            "KIRO_MCP_THINKING_HANDLING": "Inline",
            "KIRO_MCP_HOME": '"~/kiro"',
        }
    )
    assert (settings.log_level, settings.debug_mode, settings.store) == ("DEBUG", "all", "memory")
    assert (settings.write_back, settings.thinking_handling) == ("own", "inline")
    assert settings.home == "~/kiro"


def test_the_override_of_one_host_wins_over_the_override_of_all() -> None:
    """The more specific setting is the more deliberate one."""
    settings = Settings.load(
        {
            "KIRO_MCP_ENDPOINT_URL": "https://all.example",
            "KIRO_MCP_ENDPOINT_URL_RUNTIME": "https://one.example",
        }
    )
    assert settings.endpoint_overrides == {
        "runtime": "https://one.example",
        "management": "https://all.example",
        "q": "https://all.example",
        "codewhisperer": "https://all.example",
    }


def test_model_aliases_are_read_as_pairs() -> None:
    settings = Settings.load(
        {"KIRO_MCP_MODEL_ALIASES": "fast = claude-haiku-4.5, big=claude-opus-5"}
    )
    assert settings.model_aliases == {"fast": "claude-haiku-4.5", "big": "claude-opus-5"}


def test_a_mistyped_variable_suggests_the_similar_name() -> None:
    """An unknown name would otherwise be ignored without a word."""
    sentences = unknown_variables({"KIRO_MCP_MODLE": "x", "KIRO_MCP_MODEL": "y", "HOME": "/"})
    assert sentences == ("No setting is named KIRO_MCP_MODLE. Did you mean KIRO_MCP_MODEL?",)


def test_a_variable_without_a_similar_name_gets_no_suggestion() -> None:
    """A wrong guess is worse than none."""
    sentences = unknown_variables({"KIRO_MCP_ZZZZZZZZZZZZZZZZZ": "x"})
    assert sentences == ("No setting is named KIRO_MCP_ZZZZZZZZZZZZZZZZZ.",)


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    """Settings end up in logs."""
    settings = Settings.load({"KIRO_API_KEY": "ksk_secret", "KIRO_ACCESS_TOKEN": "aoa_secret"})
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.8.9.1", True), ("::1", True), ("10.0.0.1", False), ("a.b", False)],
)
def test_only_this_machines_own_addresses_are_loopback(host: str, expected: bool) -> None:
    """RFC 1122 and RFC 4291."""
    assert is_loopback(host) is expected


def test_the_documents_list_each_setting_with_its_default_and_meaning() -> None:
    """The table is what users configure by."""
    rows = re.findall(
        r"^\| `(KIRO_\w+)` \| (?:`(.*)`)? ?\| (.*) \|$", PAGE.read_text("utf-8"), re.M
    )
    declared = [
        (variable, default, meaning)
        for variable, (default, meaning) in zip(
            [name for name in variables() if name.startswith("KIRO_")], _declared(), strict=True
        )
    ]
    assert rows == declared


def _declared() -> list[tuple[str, str]]:
    fields = Settings.model_fields
    return [(_shown(fields[name].default), meaning) for name, meaning in meanings().items()]


def _shown(default: object) -> str:
    match default:
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case dict() | tuple():
            return ""
        case _:
            return str(default)


@pytest.mark.parametrize(
    ("given", "proxy"),
    [
        ("10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("http://me:word@proxy.example:3128", "http://me:word@proxy.example:3128"),
        ("socks5://127.0.0.1:1080", "socks5://127.0.0.1:1080"),
    ],
)
def test_a_proxy_may_be_given_as_host_and_port(given: str, proxy: str) -> None:
    """Other gateways take it in this form, under their own name."""
    assert Settings.load({"VPN_PROXY_URL": given}).proxy_url.get_secret_value() == proxy


def test_endpoints_keep_the_order_of_the_user() -> None:
    settings = Settings.load({"KIRO_MCP_ENDPOINTS": " Q, runtime,q "})
    assert settings.endpoint_names == ("q", "runtime")


def test_extra_headers_are_a_json_object_of_texts() -> None:
    """One variable holds all of them."""
    settings = Settings.load({"KIRO_MCP_EXTRA_HEADERS": '{"X-Team": "blue"}'})
    assert settings.headers_to_add == {"X-Team": "blue"}
    assert "blue" not in repr(settings)
