"""The retry policy by itself: decisions without a clock."""

import pytest

from kiro_mcp.chat import Fault
from kiro_mcp.client.classify import classify
from kiro_mcp.client.retry import (
    MAX_RETRY_AFTER_SECONDS,
    MAX_WAIT_SECONDS,
    Recovery,
    RetryPlan,
    Step,
    recovery_for,
)
from kiro_mcp.errors import AccountBlocked, AnswerBroken, KiroError, ServiceUnavailable
from kiro_mcp.settings import Settings


def plan(*, endpoints: int = 1, random: float = 0.0, **environ: str) -> RetryPlan:
    settings = Settings.load({f"KIRO_MCP_{name}": value for name, value in environ.items()})
    return RetryPlan(settings, endpoint_count=endpoints, random=lambda: random)


def refused(status: int, retry_after: float | None = None) -> KiroError:
    return classify(Fault(status=status, retry_after_seconds=retry_after))


def steps(of: RetryPlan, error: KiroError, count: int = 5) -> list[Step]:
    return [of.after(error) for _ in range(count)]


@pytest.mark.parametrize("random", [0.0, 0.25, 1.0])
def test_waits_after_a_fault_are_spread_over_the_whole_of_a_doubling_time(random: float) -> None:
    """Full jitter; the times are the service's clients'."""
    found = steps(plan(random=random), refused(503), 4)
    assert found == [random, 2 * random, 4 * random, None]


@pytest.mark.parametrize("random", [0.0, 1.0])
def test_an_overloaded_service_is_never_asked_sooner_than_its_clients_ask(random: float) -> None:
    """Observed: impatience after overload was followed by suspensions."""
    found = steps(plan(random=random), refused(429), 4)
    assert found == [5 + random, 10 + random, 20 + random, None]


def test_no_wait_grows_beyond_a_limit() -> None:
    assert steps(plan(MAX_RETRIES="9"), refused(429), 9)[-1] == MAX_WAIT_SECONDS


def test_the_base_delay_scales_every_schedule() -> None:
    """One setting for how patient to be."""
    assert plan(BASE_RETRY_DELAY="0.25", random=1.0).after(refused(503)) == 0.25
    assert plan(BASE_RETRY_DELAY="0.25").after(refused(429)) == 1.25


@pytest.mark.parametrize("status", [429, 503])
def test_the_service_is_left_alone_for_as_long_as_it_asks(status: int) -> None:
    """RFC 9110, section 10.2.3."""
    assert plan().after(refused(status, 9.0)) == 9.0
    assert plan(random=0.5).after(refused(status, 9.0)) == 9.5
    assert plan().after(refused(status, MAX_RETRY_AFTER_SECONDS)) == 60.0


def test_a_requested_wait_of_zero_does_not_shorten_the_schedule() -> None:
    """A date that has passed, or `Retry-After: 0`, under an overload that is still there."""
    assert steps(plan(), refused(429, 0.0), 2) == [5.0, 10.0]


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_of_over_a_minute_is_left_to_the_caller(status: int) -> None:
    """A call should not hang for that long in silence."""
    assert plan().after(refused(status, 60.5)) is None


def test_each_recovery_is_tried_once() -> None:
    trying = plan()
    missing = classify(Fault(status=400, message="profileArn is required"))
    assert steps(trying, missing, 2) == ["known_profile", None]
    assert trying.attempt == 2


def test_a_token_that_is_refused_again_is_sent_with_its_type() -> None:
    """Observed: some tokens of Identity Center need it, and a fresh one is no better."""
    found = steps(plan(), classify(Fault(status=401)), 3)
    assert found == ["fresh_token", "token_type", None]


def test_a_recovery_does_not_cost_a_retry() -> None:
    """The changed attempt may still meet a fault."""
    trying = plan(MAX_RETRIES="1")
    trying.after(classify(Fault(status=401)))
    assert trying.after(refused(503)) == 0.0
    assert (trying.attempt, trying.max_attempts) == (3, 3)


def test_all_endpoints_are_asked_before_a_wait_and_again_after_it() -> None:
    """Each endpoint has its own capacity."""
    found = steps(plan(MAX_RETRIES="1", endpoints=3), refused(429), 6)
    assert found == ["next_endpoint", "next_endpoint", 5.0, "next_endpoint", "next_endpoint", None]


def test_nothing_is_sent_to_any_endpoint_inside_a_wait_that_was_asked_for() -> None:
    """Another endpoint belongs to the same service and the same account."""
    trying = plan(endpoints=2)
    assert trying.after(refused(429, 30.0)) == 30.0
    assert trying.after(refused(429)) == "next_endpoint"
    assert trying.after(refused(429, 2.0)) == 2.0
    assert trying.after(refused(429, 300.0)) is None


@pytest.mark.parametrize(
    "reason", ["USER_REQUEST_RATE_EXCEEDED", "CREDIT_CONSUMPTION_RATE_EXCEEDED"]
)
def test_a_throttle_of_the_account_is_not_taken_to_another_endpoint(reason: str) -> None:
    """Another endpoint would count the same account's requests."""
    throttled = classify(Fault(status=429, reason=reason))
    assert plan(endpoints=2).after(throttled) == 5.0


@pytest.mark.parametrize("status", [500, 503])
def test_a_model_that_is_busy_by_a_5xx_is_not_asked_at_another_endpoint(status: int) -> None:
    """Then it is the model that has no capacity, not the endpoint."""
    busy = classify(Fault(status=status, reason="INSUFFICIENT_MODEL_CAPACITY"))
    assert plan(endpoints=2).after(busy) == 5.0


def test_a_throttle_that_comes_with_status_400_is_one() -> None:
    """The exception's name wins over the HTTP status."""
    throttled = classify(Fault(status=400, name="ThrottlingException"))
    assert steps(plan(endpoints=2), throttled, 2) == ["next_endpoint", 5.0]
    failed = classify(Fault(status=400, name="InternalServerException"))
    assert plan().after(failed) == 0.0


@pytest.mark.parametrize(
    "error",
    [
        AccountBlocked("Suspended.", code="account_suspended"),
        AccountBlocked("Suspicious.", code="forbidden", status=429, retry_after_seconds=1),
        AccountBlocked("No credits.", code="quota_exhausted", status=429),
        AccountBlocked("No budget.", code="budget_exceeded"),
        ServiceUnavailable("Moved.", status=302),
    ],
    ids=lambda error: error.message,
)
def test_errors_that_another_attempt_cannot_help_are_not_retried(error: KiroError) -> None:
    """Repeating them does harm."""
    assert plan(endpoints=4).after(error) is None


def test_silence_and_emptiness_have_counts_of_their_own() -> None:
    """Both may be billed."""
    silence = ServiceUnavailable("Silence.", code="timeout")
    nothing = AnswerBroken("Nothing.", code="empty_response")
    trying = plan(FIRST_TOKEN_MAX_RETRIES="2")
    assert steps(trying, silence, 3) == [0.0, 0.0, None]
    assert steps(trying, nothing, 2) == [0.0, None]


@pytest.mark.parametrize(
    ("fault", "recovery"),
    [
        (Fault(status=401), "fresh_token"),
        (Fault(status=400, reason="thinking_signature_invalid"), "without_reasoning"),
        (Fault(status=400, message="Invalid signature in thinking block"), "without_reasoning"),
        (Fault(reason="INVALID_CONVERSATION_ID"), "new_conversation"),
        (Fault(status=400, message="profileArn is required for this request."), "known_profile"),
        (Fault(status=403, message="User is not authorized to make this call."), "another_profile"),
        (
            Fault(
                status=400,
                reason="REQUEST_BODY_INVALID",
                message="additionalModelRequestFields.thinking: unknown",
            ),
            "without_model_fields",
        ),
        (Fault(status=400, reason="REQUEST_BODY_INVALID", message="Invalid tool use."), None),
        (Fault(status=400, reason="INVALID_MODEL_ID"), "listed_model"),
        (Fault(status=403), None),
        (Fault(status=500, message="additionalModelRequestFields"), None),
    ],
)
def test_a_refusal_names_the_change_that_takes_its_cause_away(
    fault: Fault, recovery: Recovery | None
) -> None:
    """The service's published errors, and observed ones."""
    assert recovery_for(classify(fault)) == recovery
