"""The three tools, called by the SDK's client against the emulator."""

import json
from typing import Any, cast

import pytest
from anyio import fail_after
from mcp.client import Client
from mcp.shared.exceptions import MCPError

from kiro_mcp.emulator import (
    EMULATOR_ACCESS_TOKEN,
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    RunningEmulator,
)
from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.results import ERROR_META_KEY
from tests.support.mcp import assert_valid, code, connected, words

NOWHERE = "http://127.0.0.1:1"


# --- ask_claude ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_an_answer_is_complete_in_each_half_of_the_result(
    mode: str, emulator: RunningEmulator
) -> None:
    """Observed: clients show their model one half or the other."""
    async with connected(emulator, mode=mode) as client:
        result = await client.call_tool(
            "ask_claude",
            {"prompt": "Say hello", "system": "Be brief.", "model": "claude-sonnet-4.5"},
        )
    answer = result.structured_content
    assert "Say hello" in answer["text"]
    assert words(result).startswith(answer["text"])
    assert answer["conversation_id"] in words(result)
    assert answer["status"] == "completed"
    assert answer["stop_reason"] == "end_turn"
    assert answer["truncated"] is False
    assert answer["model"] == "claude-sonnet-4.5"
    assert answer["usage"]["credits"] > 0
    assert answer["usage"]["context_percent"] > 0
    assert_valid("ask_claude", answer)


async def test_an_access_token_works_with_its_profile(emulator: RunningEmulator) -> None:
    """Observed: the service wants the profile of every identity but an API key."""
    async with connected(
        emulator,
        KIRO_API_KEY="",
        KIRO_ACCESS_TOKEN=EMULATOR_ACCESS_TOKEN,
        KIRO_PROFILE_ARN=EMULATOR_PROFILE_ARN,
    ) as client:
        result = await client.call_tool("ask_claude", {"prompt": "Say hello"})
    assert not result.is_error, words(result)


async def test_the_model_of_the_settings_is_used_if_a_call_names_none(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator, KIRO_MCP_MODEL="claude-haiku-4.5") as client:
        result = await client.call_tool("ask_claude", {"prompt": "hi"})
    answer = result.structured_content
    assert answer["model"] == "claude-haiku-4.5"
    assert "model_requested" not in answer


async def test_an_argument_that_is_null_counts_as_left_out(emulator: RunningEmulator) -> None:
    """Observed: models write null for what they do not use."""
    async with connected(emulator) as client:
        result = await client.call_tool(
            "ask_claude", {"prompt": "hi", "system": None, "model": None}
        )
    assert not result.is_error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "`prompt`"),
        ({"prompt": " \n"}, "`prompt`"),
        ({"prompt": ["hi"]}, "prompt must be text"),
        ({"prompt": {"text": "hi"}}, "prompt must be text"),
    ],
)
async def test_arguments_that_cannot_be_used_are_refused_in_words(
    arguments: dict[str, Any], says: str
) -> None:
    """A model can mend its call only if it reads what was wrong."""
    async with connected() as client:
        result = await client.call_tool("ask_claude", arguments)
    assert code(result) == "invalid_request"
    assert says in words(result)
    assert "pydantic" not in words(result)


async def test_a_tool_that_does_not_exist_is_a_protocol_error() -> None:
    """The MCP specification: unknown tools are answered with -32602."""
    async with connected() as client:
        with pytest.raises(MCPError, match="Unknown tool 'ask_gpt'"):
            await client.call_tool("ask_gpt", {})


async def test_signed_out_says_what_to_set() -> None:
    """The first call works, or says exactly what to do."""
    async with connected() as client:
        result = await client.call_tool("ask_claude", {"prompt": "hi"})
    assert code(result) == "auth_required"
    assert "KIRO_API_KEY" in words(result)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("expired", "auth_expired"),
        ("origin", "forbidden"),
        ("suspicious", "forbidden"),
        ("throttle", "rate_limited"),
        ("throttle_400", "rate_limited"),
        ("user_rate", "rate_limited"),
        ("service_rate", "rate_limited"),
        ("credit_rate", "rate_limited"),
        ("busy", "model_busy"),
        ("quota", "quota_exhausted"),
        ("overage", "quota_exhausted"),
        ("usage_limit", "quota_exhausted"),
        ("suspended", "account_suspended"),
        ("too_long", "context_too_long"),
        ("window_full", "context_too_long"),
        ("invalid_model", "model_unavailable"),
        ("malformed", "invalid_request"),
        ("failed", "upstream_error"),
        ("unavailable", "upstream_error"),
        ("empty", "empty_response"),
    ],
)
async def test_a_refusal_of_the_service_is_an_error_with_its_code(
    script: str, expected: str, emulator: RunningEmulator
) -> None:
    """Every failure names its next step."""
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"prompt": f"/emulate {script}"})
    assert code(result) == expected
    assert EMULATOR_API_KEY not in result.model_dump_json()


async def test_asking_for_the_login_status_lets_a_suspended_account_be_asked_again(
    emulator: RunningEmulator,
) -> None:
    """The message says so: the account may be back."""
    async with connected(emulator) as client:
        for _ in range(2):
            result = await client.call_tool("ask_claude", {"prompt": "/emulate suspended 1"})
            assert code(result) == "account_suspended"
            assert "action `status`" in words(result)
        assert emulator.state.prompts == 1
        await client.call_tool("login", {"action": "status"})
        result = await client.call_tool("ask_claude", {"prompt": "/emulate suspended 1"})
    assert not result.is_error


async def test_an_error_says_how_long_to_wait(emulator: RunningEmulator) -> None:
    """A program waits by the number, not by the words."""
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"prompt": "/emulate throttle"})
    facts = cast("dict[str, Any]", (result.meta or {})[ERROR_META_KEY])
    assert facts["retry_after_seconds"] == emulator.state.retry_after_seconds


@pytest.mark.parametrize("script", ["reset", "bad_crc", "exception"])
async def test_what_arrived_before_a_fault_is_returned_and_marked(
    script: str, emulator: RunningEmulator
) -> None:
    """An answer that has been paid for is never thrown away."""
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"prompt": f"/emulate {script}"})
    assert not result.is_error, words(result)
    answer = result.structured_content
    assert answer["text"]
    assert answer["truncated"] is True
    assert answer["warnings"]
    assert '"truncated":true' in words(result)
    assert_valid("ask_claude", answer)


async def test_a_service_that_cannot_be_reached_is_named() -> None:
    """The cure lies in the network or in the setting, so both are said."""
    async with connected(
        KIRO_MCP_ENDPOINT_URL="http://127.0.0.1:1", KIRO_API_KEY=EMULATOR_API_KEY
    ) as client:
        result = await client.call_tool("ask_claude", {"prompt": "hi"})
    assert code(result) == "network_error"
    assert "127.0.0.1" in words(result)


async def test_a_wrong_setting_is_reported_by_each_tool() -> None:
    """The server starts all the same, so that it can say so."""
    async with connected(KIRO_MCP_CONNECT_TIMEOUT="soon") as client:
        for tool in ("ask_claude", "list_models", "login"):
            result = await client.call_tool(tool, {})
            assert code(result) == "invalid_request"
            assert "KIRO_MCP_CONNECT_TIMEOUT" in words(result)


# --- list_models --------------------------------------------------------------------------


async def test_signed_out_the_built_in_models_are_listed_and_marked() -> None:
    """Choosing a model must not need an account."""
    async with connected() as client:
        result = await client.call_tool("list_models", {})
    listed = result.structured_content
    assert listed["source"] == "builtin"
    assert "auto" in [model["id"] for model in listed["models"]]
    assert "KIRO_API_KEY" in listed["warnings"][0]
    assert json.dumps(listed["models"][0]["id"]) in words(result)


async def test_signed_in_the_services_own_list_is_shown_whole(emulator: RunningEmulator) -> None:
    """The service sends its list in pages."""
    async with connected(emulator) as client:
        result = await client.call_tool("list_models", {})
    listed = result.structured_content
    ids = [model["id"] for model in listed["models"]]
    assert listed["source"] == "live"
    assert listed["fetched_at"]
    assert len(ids) == len(emulator.state.catalogue)
    assert_valid("list_models", listed)


async def test_a_list_is_kept_until_it_is_refreshed(emulator: RunningEmulator) -> None:
    """The list changes seldom, and every request counts."""
    async with connected(emulator) as client:
        sources = [
            (await client.call_tool("list_models", {"refresh": refresh})).structured_content[
                "source"
            ]
            for refresh in (False, False, True)
        ]
    assert sources == ["live", "cache", "live"]


async def test_the_last_good_list_outlives_a_failure(emulator: RunningEmulator) -> None:
    """A list that was right a minute ago beats none."""
    async with connected(emulator) as client:
        live = (await client.call_tool("list_models", {})).structured_content
        emulator.state.accounts.revoke(EMULATOR_API_KEY)
        kept = (await client.call_tool("list_models", {"refresh": True})).structured_content
    assert kept["source"] == "cache"
    assert kept["models"] == live["models"]
    assert kept["warnings"]


# --- login --------------------------------------------------------------------------------


async def test_login_says_what_to_do_when_signed_out() -> None:
    async with connected() as client:
        result = await client.call_tool("login", {})
    state = result.structured_content
    assert state["state"] == "signed_out"
    assert "KIRO_API_KEY" in state["next_step"]
    assert "KIRO_API_KEY" in words(result)


async def test_login_says_which_credential_is_used_without_showing_it() -> None:
    """Enough to tell two keys apart, and no more."""
    secret = "ksk_0123456789abcdef0123456789abcdef"
    async with connected(KIRO_API_KEY=secret, KIRO_MCP_ENDPOINT_URL=NOWHERE) as client:
        result = await client.call_tool("login", {"action": "status"})
    state = result.structured_content
    assert (state["state"], state["source"]) == ("signed_in", "KIRO_API_KEY")
    assert state["account"] == "ksk_…cdef"
    assert secret not in result.model_dump_json()
    assert_valid("login", state)


async def test_login_says_what_a_credential_lacks() -> None:
    async with connected(KIRO_ACCESS_TOKEN="aoa_short", KIRO_MCP_ENDPOINT_URL=NOWHERE) as client:
        result = await client.call_tool("login", {})
    assert result.structured_content["state"] == "signed_in"
    assert "KIRO_PROFILE_ARN" in result.structured_content["next_step"]


async def test_a_short_secret_is_not_shown_at_all() -> None:
    """Four characters of a short one are most of it."""
    async with connected(KIRO_API_KEY="ksk_1", KIRO_MCP_ENDPOINT_URL=NOWHERE) as client:
        result = await client.call_tool("login", {})
    assert result.structured_content["account"] == "…"


async def test_a_defect_is_reported_without_its_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A traceback may hold a prompt or a token; it goes to the log alone."""

    def broken() -> Engine:
        raise ZeroDivisionError("secret detail")

    with fail_after(20):
        async with Client(build_server(broken), mode="2026-07-28") as client:
            result = await client.call_tool("login", {})
    assert code(result) == "internal_error"
    assert "secret detail" not in words(result)
    [logged] = [record for record in caplog.records if record.exc_info]
    assert "secret detail" in str(logged.exc_info)
