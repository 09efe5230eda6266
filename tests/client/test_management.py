"""Models and usage, asked of the emulator's management host in both forms."""

from dataclasses import replace

import pytest

from kiro_mcp.emulator import HttpAnswer, RunningEmulator, frames
from kiro_mcp.emulator.scripts import json_answer
from kiro_mcp.errors import KiroError
from tests.client.driving import KEY, LOGIN, FixedToken, RenewableToken, driven, refusal

LIST = "ListAvailableModels"


@pytest.mark.parametrize("endpoints", ["runtime", "q"])
async def test_all_pages_of_the_list_come_together(
    endpoints: str, emulator: RunningEmulator
) -> None:
    """The service's list comes in pages."""
    async with driven(emulator.url, FixedToken(LOGIN), KIRO_MCP_ENDPOINTS=endpoints) as client:
        listed = await client.list_models()
    ids = [model["modelId"] for model in emulator.state.catalogue]
    assert [model.id for model in listed.models] == ids
    assert listed.default_model == "auto"
    assert len(emulator.state.requests_to(LIST)) == 2


async def test_the_form_of_the_official_client_is_the_default(emulator: RunningEmulator) -> None:
    """A capture of the official command line client (2026-07)."""
    async with driven(emulator.url, FixedToken(LOGIN)) as client:
        await client.list_models()
    first, second = emulator.state.requests
    assert (first.method, first.path, first.query) == ("POST", "/", {"origin": "KIRO_CLI"})
    assert first.body == {"origin": "KIRO_CLI"}
    assert first.headers["x-amzn-kiro-profile-arn"] == LOGIN.profile_arn
    assert "nextToken" in str(second.body)
    assert second.query == {"origin": "KIRO_CLI"}


async def test_the_older_endpoints_have_all_in_the_query(emulator: RunningEmulator) -> None:
    """The vendor's open source clients."""
    async with driven(emulator.url, FixedToken(LOGIN), KIRO_MCP_ENDPOINTS="q,runtime") as client:
        await client.list_models()
    first, _ = emulator.state.requests
    assert (first.method, first.path) == ("GET", "/List-Available-Models")
    assert first.query == {"origin": "AI_EDITOR", "profileArn": LOGIN.profile_arn}


async def test_a_list_whose_second_page_fails_is_no_list(emulator: RunningEmulator) -> None:
    """Half a list must not take the place of a whole one."""
    page = json_answer({"models": [{"modelId": "auto"}], "nextToken": "more"})
    emulator.state.enqueue(page, (refusal(400, "no"),), operation=LIST)
    async with driven(emulator.url) as client:
        with pytest.raises(KiroError):
            await client.list_models()


@pytest.mark.parametrize(
    "default",
    [{"defaultModel": {"modelId": "auto"}}, {"defaultModel": "auto"}, {"defaultModelId": "auto"}],
)
async def test_each_form_of_the_default_is_read(
    default: dict[str, object], emulator: RunningEmulator
) -> None:
    """Observed: the service's clients disagree on it."""
    emulator.state.enqueue(json_answer({"models": [], **default}), operation=LIST)
    async with driven(emulator.url) as client:
        assert (await client.list_models()).default_model == "auto"


async def test_a_list_without_end_is_cut(emulator: RunningEmulator) -> None:
    page = json_answer({"models": [{"modelId": "auto"}], "nextToken": "more"})
    emulator.state.enqueue(*[page] * 60, operation=LIST)
    async with driven(emulator.url) as client:
        assert len((await client.list_models()).models) == 1
    assert len(emulator.state.requests) == 50


async def test_faults_are_met_as_for_prompts(emulator: RunningEmulator) -> None:
    """A list is worth a second attempt too."""
    page = HttpAnswer(body=frames.compact_json({"models": []}).encode())
    emulator.state.enqueue((refusal(503),), (refusal(429),), (page,), operation=LIST)
    tokens = RenewableToken(token=replace(KEY, value="stale"))
    async with driven(emulator.url, tokens) as client:
        await client.list_models()
        await client.list_models()
    assert len(tokens.rejected) == 1


async def test_an_answer_that_is_no_object_is_a_fault(emulator: RunningEmulator) -> None:
    """A proxy's page comes with status 200."""
    page = HttpAnswer(body=b"<html>", content_type="text/html")
    emulator.state.enqueue(*[(page,)] * 9, operation=LIST)
    async with driven(emulator.url) as client:
        with pytest.raises(KiroError) as caught:
            await client.list_models()
    assert caught.value.code == "upstream_error"
