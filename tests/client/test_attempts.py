"""What the service refuses or breaks, through the real client: tried again, mended, or told."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import ref

import pytest

from kiro_mcp.chat import ChatRequest, Message, TextPart, ThinkingPart
from kiro_mcp.emulator import (
    EMULATOR_PROFILE_ARN,
    Cut,
    Pause,
    RunningEmulator,
    Script,
    Send,
    frames,
    refusals,
)
from kiro_mcp.emulator.scripts import Step
from kiro_mcp.errors import ErrorCode, KiroError
from tests.client.driving import (
    ANSWER,
    CONVERSATION_ID,
    KEY,
    LOGIN,
    NOTHING,
    Clock,
    FixedToken,
    RenewableToken,
    attempts_seen,
    driven,
    prompt,
    refusal,
    thinking_prompt,
)
from tests.support.wire import saying, speaking


@dataclass(frozen=True)
class Row:
    """One kind of refusal: what the client does when it comes every time."""

    name: str
    step: Step
    code: ErrorCode
    attempts: int = 1
    waits: Sequence[float] = ()
    says: str = ""


SLOW = (5.0, 10.0, 20.0)
QUICK = (1.0, 2.0, 4.0)

TABLE = [
    Row(
        "too-long",
        refusal(400, "Input is too long.", "CONTENT_LENGTH_EXCEEDS_THRESHOLD"),
        "context_too_long",
        says="new conversation",
    ),
    Row("too-long-words", refusal(400, "Input is too long."), "context_too_long"),
    Row(
        "improperly-formed",
        refusal(400, "Improperly formed request."),
        "invalid_request",
        says="three causes",
    ),
    Row(
        "improper-region",
        refusal(400, "Improperly formed request."),
        "invalid_request",
        says="KIRO_API_REGION",
    ),
    Row(
        "body-invalid",
        refusal(400, "Invalid tool use format.", "REQUEST_BODY_INVALID"),
        "invalid_request",
        says="Invalid tool use format",
    ),
    Row(
        "model-fields",
        refusal(400, "additionalModelRequestFields: unknown key", "REQUEST_BODY_INVALID"),
        "invalid_request",
        attempts=2,
        says="unknown key",
    ),
    Row(
        "signature",
        refusal(400, "Invalid signature in thinking block", "THINKING_SIGNATURE_INVALID"),
        "invalid_request",
        attempts=2,
    ),
    Row(
        "model",
        refusal(400, "Invalid model.", "INVALID_MODEL_ID"),
        "model_unavailable",
        attempts=2,
        says="list_models",
    ),
    Row(
        "conversation",
        refusal(400, "Invalid conversation id.", "INVALID_CONVERSATION_ID"),
        "invalid_request",
        attempts=2,
    ),
    Row(
        "profile",
        refusal(400, "profileArn is required for this request."),
        "invalid_request",
        attempts=2,
        says="KIRO_PROFILE_ARN",
    ),
    Row("unauthorized", refusal(401), "auth_expired", attempts=2, says="login"),
    Row(
        "quota",
        refusal(402, "You have reached the limit.", "MONTHLY_REQUEST_COUNT"),
        "quota_exhausted",
        says="https://app.kiro.dev/account/usage",
    ),
    Row(
        "overage",
        refusal(402, "limit", "OVERAGE_REQUEST_LIMIT_EXCEEDED"),
        "quota_exhausted",
    ),
    Row(
        "bearer",
        refusal(403, "The bearer token included in the request is invalid."),
        "auth_expired",
        attempts=2,
    ),
    Row("bearer-shouted", refusal(403, "TOKEN EXPIRED"), "auth_expired", attempts=2),
    Row(
        "suspended",
        refusal(403, "", "TEMPORARILY_SUSPENDED"),
        "account_suspended",
        says="support",
    ),
    Row(
        "suspended-words",
        refusal(403, "Your User ID (x) is temporarily suspended. The token is invalid."),
        "account_suspended",
    ),
    Row("feature", refusal(403, "no", "FEATURE_NOT_SUPPORTED"), "forbidden", says="profile"),
    Row(
        "not-authorized",
        refusal(403, "User is not authorized to make this call."),
        "forbidden",
    ),
    Row(
        "subscription",
        refusal(403, "Your subscription does not support this application."),
        "forbidden",
        says="KIRO_MCP_ORIGIN=KIRO_CLI",
    ),
    Row("forbidden-bare", refusal(403), "forbidden"),
    Row("408", refusal(408), "timeout", attempts=4, waits=QUICK),
    Row("413", refusal(413), "context_too_long"),
    Row(
        "capacity",
        refusal(429, "busy", "INSUFFICIENT_MODEL_CAPACITY"),
        "model_busy",
        attempts=4,
        waits=SLOW,
        says="another model",
    ),
    Row(
        "capacity-words",
        refusal(429, "We see a HIGH volume of traffic."),
        "model_busy",
        attempts=4,
        waits=SLOW,
    ),
    Row(
        "rate",
        refusal(429, "Too many requests"),
        "rate_limited",
        attempts=4,
        waits=SLOW,
        says="Wait",
    ),
    Row(
        "rate-seconds",
        refusal(429, "Too many requests", retry_after="7"),
        "rate_limited",
        attempts=4,
        waits=(7.0, 7.0, 7.0),
        says="7 seconds",
    ),
    Row(
        "rate-date",
        refusal(429, "Too many requests", retry_after="Sun, 01 Nov 2026 12:00:30 GMT"),
        "rate_limited",
        attempts=4,
        waits=(30.0, 10.0, 20.0),  # The second time the date has passed.
    ),
    Row(
        "rate-too-long-a-wait",
        refusal(429, "Too many requests", retry_after="61"),
        "rate_limited",
        says="61 seconds",
    ),
    Row(
        "rate-in-the-body",
        refusals.CREDIT_RATE,
        "rate_limited",
        says="Wait for 5 minutes",
    ),
    Row(
        "rate-in-the-body-that-can-be-waited-for",
        replace(refusals.USER_RATE, retry_after_milliseconds=45_000),
        "rate_limited",
        attempts=4,
        waits=(45.0, 45.0, 45.0),
        says="45 seconds",
    ),
    Row(
        "rate-with-400",
        refusals.THROTTLED_WITH_400,
        "rate_limited",
        attempts=4,
        waits=SLOW,
    ),
    Row("weekly-500", refusal(500, "limit", "WEEKLY_REQUEST_COUNT"), "quota_exhausted"),
    Row("usage", refusals.USAGE_LIMIT, "quota_exhausted"),
    Row(
        "suspicious",
        refusal(429, "We detected suspicious activity.", retry_after="1"),
        "forbidden",
        says="Do not retry",
    ),
    Row("daily", refusal(429, "limit", "DAILY_REQUEST_COUNT"), "quota_exhausted"),
    Row("monthly", refusal(429, "limit", "MONTHLY_REQUEST_COUNT"), "quota_exhausted"),
    Row(
        "busy-500",
        refusal(500, "busy", "MODEL_TEMPORARILY_UNAVAILABLE"),
        "model_busy",
        attempts=4,
        waits=SLOW,
    ),
    Row(
        "busy-500-words",
        refusal(500, "Encountered an unexpectedly high load, please try again."),
        "model_busy",
        attempts=4,
        waits=SLOW,
    ),
    *(
        Row(str(status), refusal(status), "upstream_error", attempts=4, waits=QUICK)
        for status in (500, 502, 503, 504)
    ),
    Row(
        "503-asks-for-time",
        refusal(503, retry_after="3"),
        "upstream_error",
        attempts=4,
        waits=(3.0, 3.0, 3.0),
    ),
    Row("redirect", refusal(302), "upstream_error"),
    Row("hang-up", Cut(), "stream_broken", attempts=4, waits=QUICK),
]


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
async def test_a_lasting_refusal_is_retried_up_to_the_limit_and_then_raised(
    row: Row, emulator: RunningEmulator
) -> None:
    """The service's published errors, and observed ones; the schedules are its clients'."""
    emulator.state.enqueue(*[(row.step,)] * 9)
    clock, tokens = Clock(), RenewableToken()
    # Jitter at its top, where the schedule of faults is full and others have it added.
    async with driven(emulator.url, tokens, clock=clock, jitter=_top(row)) as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(thinking_prompt())
    assert caught.value.code == row.code
    assert row.says in str(caught.value)
    assert clock.waits == pytest.approx(list(row.waits))
    assert len(attempts_seen(emulator.state)) == row.attempts
    assert len(tokens.rejected) == (row.code == "auth_expired")


def _top(row: Row) -> float:
    return 1.0 if tuple(row.waits) == QUICK else 0.0


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.waits], ids=[row.name for row in TABLE if row.waits]
)
async def test_a_refusal_that_passes_is_not_seen_by_the_caller(
    row: Row, emulator: RunningEmulator
) -> None:
    """The caller waits, and gets the answer."""
    emulator.state.enqueue((row.step,), (row.step,), ANSWER)
    async with driven(emulator.url) as client:
        assert (await client.ask(prompt())).text == "One word."
    assert attempts_seen(emulator.state) == [
        "attempt=1; max=4",
        "attempt=2; max=4",
        "attempt=3; max=4",
    ]
    ids = {seen.headers["amz-sdk-invocation-id"] for seen in emulator.state.requests}
    assert len(ids) == 1


IN_STREAM: list[tuple[str, str, str, ErrorCode, Sequence[float]]] = [
    ("ThrottlingException", "", "slow down", "rate_limited", SLOW),
    ("error", "MODEL_TEMPORARILY_UNAVAILABLE", "", "model_busy", SLOW),
    ("error", "INSUFFICIENT_MODEL_CAPACITY", "", "model_busy", SLOW),
    ("InternalServerException", "", "", "upstream_error", QUICK),
    ("ServiceUnavailableException", "", "", "upstream_error", QUICK),
    ("ValidationException", "", "Improperly formed request.", "invalid_request", ()),
    ("ValidationException", "CONTENT_LENGTH_EXCEEDS_THRESHOLD", "", "context_too_long", ()),
    ("ContentLengthExceededException", "", "Too long.", "context_too_long", ()),
    ("ServiceQuotaExceededException", "MONTHLY_REQUEST_COUNT", "", "quota_exhausted", ()),
    ("ServiceQuotaExceededException", "CONVERSATION_LIMIT_EXCEEDED", "", "context_too_long", ()),
    ("AccessDeniedException", "TEMPORARILY_SUSPENDED", "", "account_suspended", ()),
    ("AccessDeniedException", "", "You may not.", "forbidden", ()),
    ("ThrottlingException", "", "suspicious activity", "forbidden", ()),
    ("ThrottlingException", "DAILY_REQUEST_COUNT", "", "quota_exhausted", ()),
]


@pytest.mark.parametrize(
    ("name", "reason", "message", "code", "waits"),
    IN_STREAM,
    ids=[f"{case[0]}-{case[1] or case[2] or 'bare'}" for case in IN_STREAM],
)
async def test_an_error_in_a_stream_without_any_text_is_handled_like_a_refusal(
    name: str,
    reason: str,
    message: str,
    code: ErrorCode,
    waits: Sequence[float],
    emulator: RunningEmulator,
) -> None:
    """The service sends the same errors after it has said 200."""
    fault = frames.exception(message, reason, exception_type=name)
    emulator.state.enqueue(*[(Send(fault),)] * 9)
    clock = Clock()
    async with driven(emulator.url, clock=clock, jitter=1.0 if waits == QUICK else 0.0) as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(prompt())
    assert caught.value.code == code
    assert clock.waits == list(waits)


@pytest.mark.parametrize(
    "ending",
    [
        (Send(frames.exception("busy", "MODEL_TEMPORARILY_UNAVAILABLE")),),
        (Cut(),),
        (Send(frames.with_bad_checksum(frames.text("x"))),),
    ],
    ids=["exception", "cut", "checksum"],
)
async def test_nothing_is_sent_again_once_something_was_delivered(
    ending: Script, emulator: RunningEmulator
) -> None:
    """The answer is billed, and its beginning may have been shown."""
    emulator.state.enqueue((Send(frames.text("The beginning")), *ending), ANSWER)
    async with driven(emulator.url) as client:
        reply = await client.ask(prompt())
    assert reply.text == "The beginning"
    assert reply.truncated
    assert len(attempts_seen(emulator.state)) == 1


async def test_an_unfinished_tool_use_is_not_asked_for_again(emulator: RunningEmulator) -> None:
    """The model's text is kept, even if it is useless alone."""
    unfinished = frames.unfinished_tool_use("tooluse_1", "write", '{"path": "no')
    emulator.state.enqueue((Send(unfinished), Cut()), ANSWER)
    async with driven(emulator.url) as client:
        reply = await client.ask(prompt())
    assert [use.state for use in reply.tool_uses] == ["truncated"]
    assert len(attempts_seen(emulator.state)) == 1


async def test_a_refused_token_is_renewed_once(emulator: RunningEmulator) -> None:
    """The service says 403 as often as 401."""
    tokens = RenewableToken(token=replace(KEY, value="stale"))
    async with driven(emulator.url, tokens) as client:
        assert (await client.ask(prompt())).text
    assert [token.value for token in tokens.rejected] == ["stale"]
    bearers = [seen.headers["authorization"] for seen in emulator.state.requests]
    assert bearers == ["Bearer stale", f"Bearer {KEY.value}"]


async def test_a_refused_token_that_cannot_be_renewed_is_an_error_at_once(
    emulator: RunningEmulator,
) -> None:
    async with driven(emulator.url, FixedToken(replace(KEY, value="stale"))) as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(prompt())
    assert caught.value.code == "auth_expired"
    assert len(emulator.state.requests) == 1


async def test_reasoning_whose_signature_is_refused_is_left_out(emulator: RunningEmulator) -> None:
    """Observed: the service checks the signatures that it is sent, and needs none."""
    thought = ThinkingPart(text="Hmm.", signature="tampered")
    said = Message(role="assistant", parts=(thought, TextPart(text="Yes.")))
    asked = prompt().messages[0]
    request = replace(prompt(), model="claude-opus-4.6", messages=(asked, said, asked))
    async with driven(emulator.url) as client:
        assert (await client.ask(request)).text
    first, second = (str(seen.body) for seen in emulator.state.requests)
    assert "reasoningContent" in first
    assert "reasoningContent" not in second
    assert "Yes." in second


async def test_a_refused_conversation_id_is_made_anew(emulator: RunningEmulator) -> None:
    """The service's published errors."""
    refused = refusal(400, "Invalid conversation id.", "INVALID_CONVERSATION_ID")
    emulator.state.enqueue((refused,), ANSWER)
    async with driven(emulator.url) as client:
        assert (await client.ask(prompt())).text
    first, second = (_state(seen.body)["conversationId"] for seen in emulator.state.requests)
    assert first == CONVERSATION_ID
    assert second not in ("", CONVERSATION_ID)


async def test_a_listed_model_that_the_service_calls_invalid_is_requested_once_more(
    emulator: RunningEmulator,
) -> None:
    """Observed: under load the service calls a model invalid, and answers the next request."""
    emulator.state.enqueue((refusals.INVALID_MODEL,), ANSWER)
    emulator.state.enqueue((refusals.INVALID_MODEL,), (refusals.INVALID_MODEL,), ANSWER)
    async with driven(emulator.url) as client:
        assert (await client.ask(prompt())).text == "One word."
        with pytest.raises(KiroError, match="does not offer"):
            await client.ask(prompt())
    assert len(attempts_seen(emulator.state)) == 4
    assert len(emulator.state.requests_to("ListAvailableModels")) == 2, "one list, in two pages"


async def test_a_model_that_is_not_listed_is_not_asked_again(emulator: RunningEmulator) -> None:
    """The model does not exist. This also holds if the service gives no list of models."""
    async with driven(emulator.url, KIRO_MCP_MAX_RETRIES="0") as client:
        emulator.state.enqueue((refusal(500),), operation="ListAvailableModels")
        for _ in range(2):
            with pytest.raises(KiroError, match="does not offer") as caught:
                await client.ask(replace(prompt(), model="claude-opus-99"))
            assert caught.value.code == "model_unavailable"
    assert len(attempts_seen(emulator.state)) == 2
    assert len(emulator.state.requests_to("ListAvailableModels")) == 3


async def test_a_suspended_account_gets_no_request_until_a_while_has_passed(
    emulator: RunningEmulator,
) -> None:
    """An agent that calls again and again would send one more request with each call."""
    emulator.state.enqueue((refusals.SUSPENDED,))
    clock, tokens = Clock(), FixedToken()
    async with driven(emulator.url, tokens, clock=clock) as client:
        for _ in range(3):
            with pytest.raises(KiroError, match="15 minutes") as caught:
                await client.ask(prompt())
            assert caught.value.code == "account_suspended"
        with pytest.raises(KiroError, match="suspended"):
            await client.list_models()
        assert len(emulator.state.requests) == 1
        tokens.token = LOGIN
        assert (await client.ask(prompt())).text, "another credential is another account"
        tokens.token = KEY
        with pytest.raises(KiroError, match="suspended"):
            await client.ask(prompt())
        client.ask_again()
        assert (await client.ask(prompt())).text
        emulator.state.enqueue((refusals.SUSPENDED,))
        with pytest.raises(KiroError, match="suspended"):
            await client.ask(prompt())
        await clock.sleep(15 * 60)
        assert (await client.ask(prompt())).text


async def test_a_suspended_account_keeps_no_refused_call_in_memory(
    emulator: RunningEmulator,
) -> None:
    """A raised error refers to all that its call held, and a call may hold many images."""

    class Request(ChatRequest):
        """A request that a weak reference can point to."""

    async def refused() -> ref[Request]:
        request = Request(messages=prompt().messages)
        with pytest.raises(KiroError, match="suspended"):
            await client.ask(request)
        return ref(request)

    emulator.state.enqueue((refusals.SUSPENDED,))
    async with driven(emulator.url) as client:
        requests = [await refused() for _ in range(3)]
        gc.collect()
        assert [request() for request in requests] == [None, None, None]
    assert len(emulator.state.requests) == 1


async def test_a_refusal_that_quotes_the_caller_does_not_block_the_account(
    emulator: RunningEmulator,
) -> None:
    """Anybody may ask about suspended accounts."""
    quoting = refusal(400, "Invalid tool name: list_suspended_users", "REQUEST_BODY_INVALID")
    emulator.state.enqueue((quoting,), ANSWER)
    async with driven(emulator.url) as client:
        with pytest.raises(KiroError, match="list_suspended_users") as caught:
            await client.ask(prompt())
        assert caught.value.code == "invalid_request"
        assert (await client.ask(prompt())).text


async def test_no_request_is_sent_while_an_account_has_to_wait(
    emulator: RunningEmulator,
) -> None:
    """Neither from the same call nor from another one."""
    emulator.state.enqueue((refusals.CREDIT_RATE,))
    clock = Clock()
    async with driven(emulator.url, clock=clock) as client:
        with pytest.raises(KiroError, match="Wait for 5 minutes"):
            await client.ask(prompt())
        await clock.sleep(100)
        with pytest.raises(KiroError, match="Wait for 4 minutes") as caught:
            await client.ask(prompt())
        assert (caught.value.code, caught.value.retry_after_seconds) == ("rate_limited", 200)
        assert len(emulator.state.requests) == 1
        assert (await client.list_models()).models, "what is not a prompt is not held back"
        await clock.sleep(170)
        assert (await client.ask(prompt())).text
    assert clock.waits == [100, 170, 30]


async def test_refused_model_fields_are_left_out(emulator: RunningEmulator) -> None:
    """Observed: they are checked strictly, by a schema that may have changed."""
    refused = refusal(400, "additionalModelRequestFields: no", "REQUEST_BODY_INVALID")
    emulator.state.enqueue((refused,), ANSWER)
    async with driven(emulator.url) as client:
        assert (await client.ask(thinking_prompt())).text
    first, second = (cast("dict[str, Any]", seen.body) for seen in emulator.state.requests)
    assert "additionalModelRequestFields" in first
    assert "additionalModelRequestFields" not in second


async def test_a_missing_profile_is_looked_up(emulator: RunningEmulator) -> None:
    """Observed: the service wants one of everybody but API keys (2026-05)."""
    async with driven(emulator.url, FixedToken(replace(LOGIN, profile_arn=""))) as client:
        assert (await client.ask(prompt())).text
    operations = [seen.operation for seen in emulator.state.requests]
    assert operations == [
        "GenerateAssistantResponse",
        "ListAvailableProfiles",
        "GenerateAssistantResponse",
    ]


async def test_the_missing_profile_of_an_api_key_is_the_keys_own(
    emulator: RunningEmulator,
) -> None:
    """Observed: the service lists no profiles for a key, and says its own when asked for it."""
    emulator.state.enqueue((refusal(400, "profileArn is required for this request."),), ANSWER)
    async with driven(emulator.url, FixedToken(KEY)) as client:
        assert (await client.ask(prompt())).text == "One word."
    first, asked, second = emulator.state.requests
    assert (asked.operation, asked.body) == ("GetProfile", {})
    assert asked.headers["tokentype"] == "API_KEY"
    assert "profileArn" not in cast("dict[str, Any]", first.body)
    assert cast("dict[str, Any]", second.body)["profileArn"] == EMULATOR_PROFILE_ARN


async def test_a_profile_that_is_not_the_only_one_is_not_guessed(
    emulator: RunningEmulator,
) -> None:
    """The user decides which one is billed."""
    listed = frames.compact_json({"profiles": []}).encode()
    emulator.state.enqueue((replace(refusal(200), body=listed),), operation="ListAvailableProfiles")
    async with driven(emulator.url, FixedToken(replace(LOGIN, profile_arn=""))) as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(prompt())
    assert "KIRO_PROFILE_ARN" in caught.value.next_step


async def test_an_empty_answer_is_requested_once_more(emulator: RunningEmulator) -> None:
    """Observed: the service sometimes ends an answer before it began."""
    emulator.state.enqueue(NOTHING, ANSWER)
    async with driven(emulator.url) as client:
        assert (await client.ask(prompt())).text == "One word."


@pytest.mark.parametrize(
    ("metadata", "stop_reason", "says"),
    [
        ({"stopDetails": {"refusal": {"explanation": "No."}}}, "refusal", "No."),
        ({"stopReason": "CONTENT_FILTERED"}, "refusal", ""),
        ({"stopReason": "MAX_TOKENS"}, "max_tokens", ""),
        ({"stopReason": "MODEL_CONTEXT_WINDOW_EXCEEDED"}, "context_window_exceeded", ""),
    ],
)
async def test_an_answer_that_says_why_it_is_empty_is_one(
    metadata: dict[str, object], stop_reason: str, says: str, emulator: RunningEmulator
) -> None:
    """Observed: for the vendor's IDE, an answer with a reason for its end is not empty."""
    emulator.state.enqueue((Send(frames.event("metadataEvent", metadata) + frames.ending()),))
    async with driven(emulator.url) as client:
        reply = await client.ask(prompt())
    assert (reply.text, reply.stop_reason) == ("", stop_reason)
    assert (reply.refusal.explanation if reply.refusal else "") == says
    assert len(emulator.state.requests) == 1


async def test_a_second_empty_answer_is_an_error(emulator: RunningEmulator) -> None:
    """An empty answer must not count as an answer."""
    emulator.state.enqueue(NOTHING, NOTHING, ANSWER)
    async with driven(emulator.url) as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(prompt())
    assert caught.value.code == "empty_response"
    assert len(emulator.state.requests) == 2


@pytest.mark.parametrize(("retries", "attempts"), [("0", 1), ("1", 2), ("2", 3)])
async def test_an_answer_that_does_not_begin_is_retried_as_often_as_the_setting_says(
    retries: str, attempts: int, emulator: RunningEmulator
) -> None:
    """Each attempt may be billed, so one is the default."""
    silence: Script = (Send(b""), Pause(60), Cut())
    emulator.state.enqueue(*[silence] * 9)
    async with driven(
        emulator.url,
        KIRO_MCP_FIRST_TOKEN_TIMEOUT="0.1",
        KIRO_MCP_FIRST_TOKEN_MAX_RETRIES=retries,
    ) as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(prompt())
    assert caught.value.code == "timeout"
    assert len(attempts_seen(emulator.state)) == attempts


async def test_without_retries_a_fault_is_raised_at_once(emulator: RunningEmulator) -> None:
    emulator.state.enqueue((refusal(503),), ANSWER)
    async with driven(emulator.url, KIRO_MCP_MAX_RETRIES="0") as client:
        with pytest.raises(KiroError):
            await client.ask(prompt())
    assert attempts_seen(emulator.state) == ["attempt=1; max=1"]


async def test_how_long_the_first_wait_is_is_a_setting(emulator: RunningEmulator) -> None:
    """All other waits grow with this setting."""
    emulator.state.enqueue(*[(refusal(503),)] * 3)
    clock = Clock()
    async with driven(
        emulator.url,
        clock=clock,
        jitter=1.0,
        KIRO_MCP_BASE_RETRY_DELAY="0.5",
        KIRO_MCP_MAX_RETRIES="2",
    ) as client:
        with pytest.raises(KiroError):
            await client.ask(prompt())
    assert clock.waits == [0.5, 1.0]


async def test_a_host_that_hangs_up_without_an_answer_is_asked_again() -> None:
    """Nothing was delivered."""
    clock = Clock()
    async with speaking(saying()) as url, driven(url, clock=clock, jitter=1.0) as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(prompt())
    assert caught.value.code == "network_error"
    assert clock.waits == list(QUICK)


async def test_a_page_in_the_place_of_an_answer_is_a_fault_of_the_way(
    emulator: RunningEmulator,
) -> None:
    """A proxy's login page comes with status 200."""
    emulator.state.enqueue(*[(Send(b"<html><title>Log in</title></html>"),)] * 9)
    async with driven(emulator.url) as client:
        with pytest.raises(KiroError, match="Log in") as caught:
            await client.ask(prompt())
    assert caught.value.code == "upstream_error"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 500])
async def test_only_an_overloaded_endpoint_is_left_for_the_next(
    status: int, emulator: RunningEmulator
) -> None:
    """Observed: other refusals are the same everywhere, and repeating them does harm."""
    emulator.state.enqueue(*[(refusal(status, "no"),)] * 9)
    async with driven(emulator.url, KIRO_MCP_ENDPOINTS="runtime,amazonq") as client:
        with pytest.raises(KiroError):
            await client.ask(prompt())
    assert {seen.path for seen in emulator.state.requests} == {"/generateAssistantResponse"}


async def test_overload_moves_on_at_once_and_waits_only_when_all_are_overloaded(
    emulator: RunningEmulator,
) -> None:
    """Each endpoint has its own capacity."""
    busy = refusal(429, "Too many requests")
    emulator.state.enqueue((busy,), (busy,), (busy,), ANSWER)
    clock = Clock()
    async with driven(emulator.url, clock=clock, KIRO_MCP_ENDPOINTS="runtime,amazonq") as client:
        assert (await client.ask(prompt())).text
    paths = [seen.path for seen in emulator.state.requests]
    assert paths == ["/generateAssistantResponse", "/", "/generateAssistantResponse", "/"]
    turns = [_state(seen.body)["currentMessage"] for seen in emulator.state.requests]
    origins = [turn["userInputMessage"]["origin"] for turn in turns]
    assert origins == ["KIRO_CLI", "CLI", "KIRO_CLI", "CLI"]
    assert clock.waits == [5.0]
    assert attempts_seen(emulator.state)[-1] == "attempt=4; max=4"


def _state(body: object) -> dict[str, Any]:
    return cast("dict[str, Any]", body)["conversationState"]
