"""The conversation ids under which the service caches the prompts of GPT models."""

from typing import Any

from kiro_mcp.emulator import EMULATOR_ACCESS_TOKEN, EMULATOR_PROFILE_ARN, RunningEmulator
from tests.support.mcp import ask, connected, sent

TASK = {"role": "user", "content": "Sort this list: 3, 1, 2."}
STEPS: list[dict[str, Any]] = [
    {"role": "assistant", "content": "By size?"},
    {"role": "user", "content": [{"type": "text", "text": "Yes."}]},
    {"role": "assistant", "content": "1, 2, 3"},
    {"role": "user", "content": "Thanks. And now backwards."},
]


def sent_id(emulator: RunningEmulator) -> str:
    return sent(emulator)["conversationState"]["conversationId"]


async def test_a_history_that_grows_keeps_the_id_that_it_is_sent_with(
    emulator: RunningEmulator,
) -> None:
    """Observed: a cached prompt of GPT costs a tenth, and is found by the id alone."""
    ids = set[str]()
    async with connected(emulator) as client:
        for length in (0, 2, 4):
            answer = await ask(
                client, model="gpt-5.6-sol", system="Be brief.", messages=[TASK, *STEPS[:length]]
            )
            ids.add(sent_id(emulator))
        assert len(ids) == 1
        # A client may put the last message into `prompt`, and a stored one goes on as it began.
        await ask(client, system="Be brief.", prompt="Yes.", messages=[TASK, STEPS[0]])
        assert {sent_id(emulator)} == ids
        await ask(client, conversation_id=answer["conversation_id"], prompt="Once more.")
        assert {sent_id(emulator)} == ids
    assert answer["conversation_id"] not in ids


async def test_other_histories_and_prompts_have_other_ids(emulator: RunningEmulator) -> None:
    """Two tasks must not evict each other's cache."""
    calls: list[dict[str, Any]] = [
        {"messages": [TASK, *STEPS]},
        {"messages": [TASK, *STEPS], "system": "Be brief."},
        {"messages": [{"role": "user", "content": "Another task."}, *STEPS]},
        {"messages": [TASK, TASK, *STEPS]},
        {"prompt": TASK["content"]},
        {"prompt": TASK["content"]},
    ]
    ids = set[str]()
    async with connected(emulator) as client:
        for call in calls:
            await ask(client, **call)
            ids.add(sent_id(emulator))
    assert len(ids) == len(calls)


async def test_two_credentials_never_share_an_id(emulator: RunningEmulator) -> None:
    """The same history of two people is two conversations."""
    login = {
        "KIRO_API_KEY": "",
        "KIRO_ACCESS_TOKEN": EMULATOR_ACCESS_TOKEN,
        "KIRO_PROFILE_ARN": EMULATOR_PROFILE_ARN,
    }
    ids: list[str] = []
    for credential in ({}, login, {}):
        async with connected(emulator, **credential) as client:
            await ask(client, messages=[TASK, *STEPS])
            ids.append(sent_id(emulator))
    assert ids[0] == ids[2] != ids[1]
