"""No secret leaves: each shape, and each name, wherever it stands."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiro_mcp.redaction import (
    HIDDEN,
    MAX_REMEMBERED,
    WINDOW_CHARACTERS,
    mask,
    mask_address,
    redact,
    redact_json,
    redact_values,
    remember_secret,
    secret_spans,
)
from kiro_mcp.settings import Settings
from tests.support.secrets import ACCESS, IN_USE, JWT, KEY, REFRESH, TEXTS


@pytest.mark.parametrize("secret", [ACCESS, REFRESH, KEY, JWT], ids=["aoa", "aor", "ksk", "jwt"])
@pytest.mark.parametrize(
    "around",
    ["{}", "before {} after", "Authorization: Bearer {}", "x={}&y=1", '{{"a": "{}"}}', "({})."],
)
def test_a_secret_is_known_by_its_own_shape(secret: str, around: str) -> None:
    """Observed: the shapes of the service's tokens; RFC 7519 for a JWT."""
    shown = redact(around.format(secret))
    assert secret not in shown
    assert secret[8:20] not in shown
    assert HIDDEN in shown


NAMES = [
    *("accessToken", "access_token", "refreshToken", "refresh_token", "idToken", "clientSecret"),
    *("client_secret", "deviceCode", "device_code", "codeVerifier", "apiKey", "password"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "around",
    [
        '{{"{name}": "{value}", "region": "us-east-1"}}',
        '{{"{name}":"{value}"}}',
        "{{'{name}': '{value}'}}",
        '{{\\"{name}\\": \\"{value}\\"}}',
        "{name}={value}&region=us-east-1",
        "{name}: {value}",
    ],
)
def test_a_secret_is_known_by_the_name_beside_it(name: str, around: str) -> None:
    """Client secrets and device codes have no shape of their own."""
    value = "s3cr3t-value-of-no-known-shape"
    shown = redact(around.format(name=name, value=value))
    assert value not in shown
    assert name in shown


@given(st.text(min_size=1).filter(lambda text: "redacted" not in text))
def test_any_json_text_under_a_secret_name_is_hidden(value: str) -> None:
    """Whatever bytes a client secret has, JSON's escapes included."""
    encoded = json.dumps({"clientSecret": f"begin{value}end", "region": "us-east-1"})
    assert "begin" not in redact(encoded)
    assert "us-east-1" in redact(encoded)


@pytest.mark.parametrize(
    "text",
    [
        "Invalid refresh token provided",
        "It takes a basic understanding, and Basic knowledge.",
        "The bearer token included in the request is invalid.",
        "https://device.sso.us-east-1.amazonaws.com/?user_code=ABCD-EFGH",
        "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE",
        "",
    ],
)
def test_text_that_is_not_secret_is_left_alone(text: str) -> None:
    """A message without its cause does not help."""
    assert redact(text) == text


@given(
    st.text(alphabet="aoerksy_JAB:=\"' .1\\")
    | st.sampled_from([text for text, _ in TEXTS.values()])
)
def test_redacting_again_changes_nothing(text: str) -> None:
    """A capture is redacted when it is written and again when it is read."""
    assert redact(redact(text)) == redact(text)


@given(st.text(alphabet="aoerksy_JAB:=\"' .1\\token"))
def test_secrets_are_found_in_order_and_without_overlaps(text: str) -> None:
    """Code that cuts the secrets out relies on this."""
    places = [place for span in secret_spans(text) for place in span]
    assert places == sorted(set(places))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"apiKey": "opaque"}, {"apiKey": HIDDEN}),
        ({"api_key": 123, "n": 123}, {"api_key": HIDDEN, "n": 123}),
        ({"password": ""}, {"password": ""}),
        ({"password": True, "x": None}, {"password": True, "x": None}),
        ({"properties": {"password": {"type": "string"}}},) * 2,
        ([f"the key is {KEY}", {KEY: 1}], [f"the key is {HIDDEN}", {HIDDEN: 1}]),
        ({"text": "the password: ", "next": "fine"},) * 2,
    ],
)
def test_redacted_json_keeps_its_structure(value: object, shown: object) -> None:
    """A declaration of a password is not one."""
    assert redact_json(value) == shown


def test_a_mask_tells_two_secrets_apart_and_no_more() -> None:
    assert mask(KEY) == "ksk_…cdef"
    assert mask("ksk_1") == "…"
    assert mask(ACCESS) == f"…{ACCESS[-4:]}"
    assert mask_address("person@example.com") == "p…@example.com"
    assert mask_address("no address") == "…"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("eyJaaaa-" * 100_000, id="beginnings-of-jwts"),
        pytest.param("eyJaaaa.eyJ " * 60_000, id="halves-of-jwts"),
        pytest.param("password" + " " * 800_000, id="blanks"),
        pytest.param("password=" + "\\" * 400_000 + '"' + "\\" * 400_000, id="backslashes"),
        pytest.param("Basic " * 100_000, id="schemes"),
        pytest.param("password='" * 80_000, id="names"),
    ],
)
def test_a_long_hostile_text_is_searched_in_linear_time(text: str) -> None:
    """With a quadratic pattern each of these takes many minutes."""
    assert len(redact(text)) <= len(text) + len(HIDDEN) * text.count("password")


@pytest.mark.parametrize("length", [40, 3000, 2 * WINDOW_CHARACTERS])
@pytest.mark.parametrize("offset", [-3000, -20, 0, 20])
@pytest.mark.parametrize("form", ["{} ", 'clientSecret="{}" ', "Bearer {} "])
def test_a_secret_is_found_wherever_it_stands_in_a_long_text(
    length: int, offset: int, form: str
) -> None:
    """A long text is searched in windows, and a secret may be larger than one."""
    secret = "aoa" + "S" * length
    before = "." * (WINDOW_CHARACTERS + offset)
    shown = redact(before + form.format(secret) + "and more. " * 5000)
    assert "SSS" not in shown
    assert shown.startswith(before)
    assert shown.endswith(" " + "and more. " * 5000)


def test_the_middle_of_a_word_is_not_taken_for_a_secret() -> None:
    """A window may begin anywhere."""
    text = "xaoaaaaaaaaaaaaaaaaaksk_a" * 10_000
    assert redact(text) == text


@pytest.mark.parametrize(
    "written",
    [
        IN_USE,
        quote(IN_USE),
        quote(IN_USE, safe=""),
        quote_plus(IN_USE),
        json.dumps(IN_USE),
        IN_USE.replace("/", "\\/"),
    ],
)
def test_a_secret_in_use_is_hidden_in_every_spelling(written: str) -> None:
    for show in (redact, redact_values):
        shown = written.replace(written.strip('"'), HIDDEN)
        assert show(f"You sent {written}!") == f"You sent {shown}!"


def test_a_long_secret_in_use_is_hidden_also_where_it_was_cut_off() -> None:
    """Services and our own limits cut messages."""
    secret = "cut-me-anywhere-after-sixteen-letters"
    remember_secret(secret)
    for length in range(16, len(secret) + 1):
        assert redact(f"x {secret[:length]}") == f"x {HIDDEN}"
        assert redact(f"x {secret[:length]}… y") == f"x {HIDDEN}… y"


def test_a_value_too_short_to_be_a_secret_is_not_hidden() -> None:
    remember_secret("blue")
    remember_secret("")
    assert redact_values("a blue sky") == "a blue sky"


def test_the_secrets_of_settings_outlast_any_number_of_tokens() -> None:
    settings = {
        "KIRO_API_KEY": "opaque-key-1",
        "KIRO_REFRESH_TOKEN": "opaque-refresh-2",
        "KIRO_MCP_HTTP_TOKEN": "opaque-token-3",
        "KIRO_MCP_EXTRA_HEADERS": '{"X-Gateway": "opaque-header-4"}',
        "KIRO_MCP_PROXY_URL": "http://me:opaque%2Fpass-5@proxy.example",
    }
    Settings.load(settings)
    for number in range(MAX_REMEMBERED + 1):
        remember_secret(f"a-token-{number:04d}")
    basic = base64.b64encode(b"me:opaque/pass-5").decode()
    shown = redact(f"{settings} opaque/pass-5 {basic} a-token-0000 a-token-0256")
    assert "opaque" not in shown
    assert basic not in shown
    assert "a-token-0000" in shown
    assert "a-token-0256" not in shown
