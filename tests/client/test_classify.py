"""What each refusal of the service means to a caller."""

import json
from datetime import UTC, datetime

import pytest

from kiro_mcp.chat import Fault
from kiro_mcp.client.classify import classify, fault_from_response
from kiro_mcp.errors import ErrorCode
from kiro_mcp.wire.events import MAX_MESSAGE_CHARACTERS

NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


def fault(status: int, body: object = b"", **headers: str) -> Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return fault_from_response(status, named, raw, now=NOW)


def service_error(message: str, reason: str | None = None) -> dict[str, str | None]:
    return {"message": message, "reason": reason}


CASES: list[tuple[str, int, object, ErrorCode]] = [
    (
        "bearer-invalid",
        403,
        service_error("The bearer token included in the request is invalid."),
        "auth_expired",
    ),
    ("unauthorized", 401, b"", "auth_expired"),
    (
        "security-token",
        403,
        service_error("The security token included is expired"),
        "auth_expired",
    ),
    (
        "not-authorized",
        403,
        service_error("User is not authorized to make this call."),
        "forbidden",
    ),
    ("feature", 403, service_error("no", "FEATURE_NOT_SUPPORTED"), "forbidden"),
    ("suspended", 403, service_error("", "TEMPORARILY_SUSPENDED"), "account_suspended"),
    (
        "suspended-null-reason",
        403,
        service_error("Your User ID (x) temporarily is suspended."),
        "account_suspended",
    ),
    *(
        (f"suspended-{status}-{number}", status, service_error(message), "account_suspended")
        for status in (400, 403, 423, 429, 500)
        for number, message in enumerate(
            (
                "User ID is temporarily suspended",
                "Your User ID temporarily is suspended.",
                "Your User ID (d-9067642ac7.04b8f498-70c1) temporarily is suspended. We've locked"
                " your account as a security precaution.",
                "your account has been temporarily\nSUSPENDED",
            )
        )
    ),
    ("suspended-plain", 403, b"This login is suspended", "account_suspended"),
    ("suspended-reason", 400, service_error("no", "ACCOUNT_SUSPENDED"), "account_suspended"),
    ("suspended-name", 400, {"__type": "x#AccountSuspendedException"}, "account_suspended"),
    (
        "suspended-denied-as-400",
        400,
        {"__type": "x#AccessDeniedException", "message": "It is suspended"},
        "account_suspended",
    ),
    *(
        (f"quotes-the-caller-{number}", 400, service_error(message), "invalid_request")
        for number, message in enumerate(
            (
                "Invalid tool name: list_suspended_users",
                "tools.0: 'my account is suspended' is not a name",
                "account_suspended is not a property",
            )
        )
    ),
    (
        "quotes-the-model",
        400,
        service_error("Invalid model: suspended", "INVALID_MODEL_ID"),
        "model_unavailable",
    ),
    (
        "quotes-the-caller-as-403",
        403,
        {"__type": "x#ValidationException", "message": "Invalid tool name: suspended"},
        "invalid_request",
    ),
    ("out-of-service", 503, b"This service is suspended for a while", "upstream_error"),
    (
        "quota",
        402,
        service_error("You have reached the limit.", "MONTHLY_REQUEST_COUNT"),
        "quota_exhausted",
    ),
    ("quota-bare", 402, b"", "quota_exhausted"),
    ("quota-as-429", 429, service_error("x", "DAILY_REQUEST_COUNT"), "quota_exhausted"),
    ("overage", 402, service_error("x", "OVERAGE_REQUEST_LIMIT_EXCEEDED"), "quota_exhausted"),
    ("suspicious", 429, service_error("We detected suspicious activity."), "forbidden"),
    ("throttle", 429, service_error("Too many requests"), "rate_limited"),
    ("busy", 429, service_error("x", "INSUFFICIENT_MODEL_CAPACITY"), "model_busy"),
    ("busy-500", 500, service_error("x", "MODEL_TEMPORARILY_UNAVAILABLE"), "model_busy"),
    ("busy-words", 500, service_error("Encountered unexpectedly high load"), "model_busy"),
    (
        "busy-traffic",
        429,
        service_error("We are experiencing high volume of traffic"),
        "model_busy",
    ),
    (
        "too-long",
        400,
        service_error("Input is too long.", "CONTENT_LENGTH_EXCEEDS_THRESHOLD"),
        "context_too_long",
    ),
    ("too-long-words", 400, service_error("Input is too long."), "context_too_long"),
    ("too-large", 413, b"", "context_too_long"),
    ("too-large-named", 413, {"__type": "x#ValidationException"}, "context_too_long"),
    (
        "prompt-too-long",
        400,
        service_error("prompt is too long: 210000 tokens > 200000 maximum"),
        "context_too_long",
    ),
    (
        "input-and-answer-too-long",
        400,
        service_error("input length and `max_tokens` exceed context limit: 190000 + 64000"),
        "context_too_long",
    ),
    ("window-full", 400, service_error("Context window is full."), "context_too_long"),
    (
        "other-vendors-words",
        400,
        service_error("Your input exceeds the context window of this model."),
        "context_too_long",
    ),
    *(
        (f"{period}-as-{status}", status, service_error("x", reason), "quota_exhausted")
        for status in (400, 403, 429, 500)
        for period, reason in (
            ("hourly", "HOURLY_REQUEST_COUNT"),
            ("daily", "DAILY_REQUEST_COUNT"),
            ("weekly", "WEEKLY_REQUEST_COUNT"),
            ("monthly", "MONTHLY_REQUEST_COUNT"),
            ("usage", "USAGE_LIMIT_REACHED"),
            ("overage", "OVERAGE_REQUEST_LIMIT_EXCEEDED"),
        )
    ),
    ("quota-named-throttle", 402, {"__type": "x#ThrottlingException"}, "quota_exhausted"),
    ("throttle-as-400", 400, {"__type": "com.amazon#ThrottlingException"}, "rate_limited"),
    ("throttle-as-403", 403, {"__type": "com.amazon#ThrottlingException"}, "rate_limited"),
    ("fault-as-400", 400, {"__type": "x#InternalServerException"}, "upstream_error"),
    ("mistake-as-500", 500, {"__type": "x#ValidationException"}, "invalid_request"),
    (
        "bad-token-as-400",
        400,
        {"__type": "x#AccessDeniedException", "message": "Invalid token"},
        "auth_expired",
    ),
    ("model", 400, service_error("Invalid model.", "INVALID_MODEL_ID"), "model_unavailable"),
    ("malformed", 400, service_error("Improperly formed request."), "invalid_request"),
    ("named-fault", 400, service_error("Unknown key", "REQUEST_BODY_INVALID"), "invalid_request"),
    ("not-found", 404, b"<html>nothing here</html>", "invalid_request"),
    ("server", 500, b"", "upstream_error"),
    ("gateway", 502, b"<html>Bad Gateway</html>", "upstream_error"),
    ("redirect", 302, b"", "upstream_error"),
]


@pytest.mark.parametrize(
    ("status", "body", "code"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_refusal_gets_its_code_and_a_next_step(
    status: int, body: object, code: ErrorCode
) -> None:
    """The service's published errors, and observed ones."""
    error = classify(fault(status, body))
    assert error.code == code
    assert error.next_step
    assert error.status == status


@pytest.mark.parametrize(
    ("name", "reason", "code"),
    [
        ("error", "MODEL_TEMPORARILY_UNAVAILABLE", "model_busy"),
        ("ThrottlingException", "", "rate_limited"),
        ("ValidationException", "", "invalid_request"),
        ("InternalServerException", "", "upstream_error"),
    ],
)
def test_an_error_inside_a_stream_is_read_by_the_same_rules(
    name: str, reason: str, code: ErrorCode
) -> None:
    """The service sends the same errors either way."""
    assert classify(Fault(name=name, reason=reason)).code == code


def test_the_name_is_read_from_the_header_and_cut_at_its_colon() -> None:
    """The REST form of the protocol."""
    assert (
        fault(400, b"", x_amzn_errortype="ValidationException:http://x").name
        == "ValidationException"
    )


def test_the_name_is_read_from_the_body_and_cut_at_its_namespace() -> None:
    """The RPC form of the protocol."""
    assert fault(400, {"__type": "com.amazon#ValidationException"}).name == "ValidationException"


def test_a_nested_error_is_read() -> None:
    """Observed: some answers nest it."""
    nested = fault(400, {"error": {"reason": "INVALID_MODEL_ID", "message": "m"}})
    assert (nested.reason, nested.message) == ("INVALID_MODEL_ID", "m")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_is_judged_by_its_status(body: bytes) -> None:
    """A proxy's page must not hide the refusal."""
    assert fault(503, body) == Fault(status=503)


def test_an_error_has_the_request_id_for_support() -> None:
    assert classify(fault(500, b"", x_amzn_requestid="id-1")).request_id == "id-1"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        ("Sun, 01 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Nov 2026 11:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -1200", 1e9),  # No date can be that late.
        ("whenever", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_a_date(header: str, seconds: float | None) -> None:
    """RFC 9110, section 10.2.3."""
    assert classify(fault(429, b"", retry_after=header)).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("header", "milliseconds", "seconds"),
    [
        ("", 300_000, 300.0),
        ("7", 300_000, 300.0),
        ("600", 300_000, 600.0),
        ("", 1500.5, 1.5005),
        ("7", -1, 7.0),
        ("7", "soon", 7.0),
        ("", float("inf"), None),
        ("", 10**400, None),
        ("", True, None),
    ],
)
def test_the_longer_wait_of_header_and_body_counts(
    header: str, milliseconds: object, seconds: float | None
) -> None:
    """Observed: the body of a throttle has the wait, too."""
    body = {"message": "Wait.", "retryAfterMilliseconds": milliseconds}
    throttle = classify(fault(429, body, retry_after=header))
    assert throttle.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ("0.5", "0.5 seconds"),
        ("1", "1 second "),
        ("61", "61 seconds"),
        ("300", "5 minutes"),
        ("301", "6 minutes"),
        ("86400", "24 hours"),
    ],
)
def test_the_wait_that_the_service_asks_for_is_reported(seconds: str, said: str) -> None:
    """A model or a person reads it. It is never shorter than the wait in the answer."""
    assert f"Wait for {said}" in str(classify(fault(429, b"", retry_after=seconds)))


def test_the_error_for_a_subscription_to_another_program_names_the_setting_that_helps() -> None:
    """Observed: a subscription to the CLI alone, asked with the origin of the IDE."""
    error = classify(
        fault(403, service_error("Your subscription does not support this application."))
    )
    assert error.code == "forbidden"
    assert "KIRO_MCP_ORIGIN=KIRO_CLI" in error.next_step
    assert "KIRO_MCP_ORIGIN=AI_EDITOR" in error.next_step


def test_a_long_message_is_cut_and_brought_onto_one_line() -> None:
    """An error should fit on one line of a chat."""
    message = fault(500, service_error("a\n b" + "c" * 5000)).message
    assert message.startswith("a bc")
    assert len(message) <= MAX_MESSAGE_CHARACTERS
