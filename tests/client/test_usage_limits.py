"""What an account has used of its plan, from answers with and without each part."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kiro_mcp.client.management import UsageLimits, read_usage_limits

RESET = datetime(2026, 12, 1, tzinfo=UTC)
RESET_SECONDS = RESET.timestamp()

POT = {"currentUsage": 10, "usageLimit": 50}


def breakdown(**members: Any) -> dict[str, Any]:
    return {"usageBreakdownList": [{"resourceType": "CREDIT", **members}]}


@pytest.mark.parametrize(
    ("answer", "used", "limit"),
    [
        ({}, None, None),
        ({"usageBreakdownList": None}, None, None),
        ({"usageBreakdownList": ["?"]}, None, None),
        (breakdown(**POT), 10.0, 50.0),
        (
            breakdown(**POT, currentUsageWithPrecision=10.25, usageLimitWithPrecision=50.5),
            10.25,
            50.5,
        ),
        (breakdown(currentUsage=0, usageLimit=50, currentUsageWithPrecision=None), 0.0, 50.0),
        (breakdown(currentUsage=True, usageLimit="50"), None, None),
        (breakdown(currentUsage=float("inf"), usageLimit=10**400), None, None),
        (breakdown(**POT, freeTrialInfo={"freeTrialStatus": "ACTIVE", **POT}), 20.0, 100.0),
        (breakdown(**POT, freeTrialInfo={"freeTrialStatus": "EXPIRED", **POT}), 10.0, 50.0),
        (
            breakdown(
                **POT,
                freeTrialInfo={"freeTrialStatus": "ACTIVE", **POT},
                bonuses=[
                    {"status": "ACTIVE", "currentUsage": 1.5, "usageLimit": 2.5},
                    {"status": "EXPIRED", **POT},
                    {"status": "EXHAUSTED", **POT},
                ],
            ),
            21.5,
            102.5,
        ),
        ({"usageBreakdown": {"resourceType": "AGENTIC_REQUEST", **POT}}, 10.0, 50.0),
        (
            {"limits": [{"type": "AGENTIC_REQUEST", "currentUsage": 3, "totalUsageLimit": 9}]},
            3.0,
            9.0,
        ),
        (
            {
                "usageBreakdownList": [
                    {"resourceType": "SPEC", "currentUsage": 1},
                    {"resourceType": "CREDIT", "currentUsage": 2},
                ]
            },
            2.0,
            None,
        ),
    ],
)
def test_used_and_limit_are_the_plans_with_what_is_active_beside_it(
    answer: dict[str, Any], used: float | None, limit: float | None
) -> None:
    """The service's published model; exact figures are preferred."""
    found = read_usage_limits(answer)
    assert (found.used, found.limit) == (used, limit)


@pytest.mark.parametrize(
    ("answer", "resets_at"),
    [
        ({"nextDateReset": RESET_SECONDS, "daysUntilReset": 0}, RESET),
        ({"nextDateReset": int(RESET_SECONDS)}, RESET),
        ({"nextDateReset": RESET_SECONDS * 1000}, RESET),
        (breakdown(nextDateReset=RESET_SECONDS), RESET),
        ({"daysUntilReset": 7}, None),
        ({"nextDateReset": 0}, None),
        ({"nextDateReset": 1e300}, None),
        ({"nextDateReset": float("nan")}, None),
        ({"nextDateReset": "soon"}, None),
    ],
)
def test_the_reset_is_a_time_and_never_the_days_until_it(
    answer: dict[str, Any], resets_at: datetime | None
) -> None:
    """Observed: `daysUntilReset` is often 0; times come with fractions."""
    assert read_usage_limits(answer).resets_at == resets_at


def test_plan_overage_and_address_are_read() -> None:
    """The service's published model."""
    answer: dict[str, Any] = {
        "subscriptionInfo": {"subscriptionTitle": "KIRO PRO", "type": "KIRO_PRO"},
        "overageConfiguration": {"overageStatus": "ENABLED", "overageLimit": 100},
        "userInfo": {"email": "a@b.example"},
        **breakdown(currentOverages=2, currentOveragesWithPrecision=2.5),
    }
    assert read_usage_limits(answer) == UsageLimits(
        plan="KIRO PRO",
        email="a@b.example",
        is_overage_allowed=True,
        overage_used=2.5,
        overage_cap=100.0,
    )
