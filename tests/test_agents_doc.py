"""docs/agents.md: what a reader copies from it works, and its results look as the real ones do."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from kiro_mcp.emulator import EmulatorState, running
from kiro_mcp.emulator.script_files import read_script
from tests.support.mcp import assert_valid, connected

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "agents.md").read_text("utf-8")
BLOCKS: list[dict[str, Any]] = [
    json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)
]

CALL = {"name": "get_weather", "arguments": {"city": "Paris"}}
ANSWERS = [
    {"when": "moon", "steps": [{"text": "There is none: the moon has no air."}]},
    {"when": "sunny", "steps": [{"text": "It is sunny in Paris, 18 °C."}]},
    {"when": "Paris", "steps": [{"text": "Let me look."}, {"tool_use": CALL}]},
    # The caller waits for a second. Its next call needs no prompt, so the rest is on time.
    {"when": "curlew", "steps": [{"text": "First, "}, {"pause": 2}, {"text": "then the rest."}]},
    {"when": "meadows", "steps": [{"text": '{"name": "lapwing", "eggs": 4}'}]},
]
"""What the model says to the page's prompts."""


async def test_each_request_of_the_page_is_taken_and_answered_as_the_page_shows(
    tmp_path: Path,
) -> None:
    """Blocks are pairs of a request and its result, or a request that a result came before."""
    script = tmp_path / "answers.json"
    script.write_text(json.dumps({"answers": ANSWERS}), "utf-8")
    real_ids: dict[str, str] = {}
    result: Mapping[str, Any] = {}
    shown = 0
    state = EmulatorState(script_files=[read_script(script)])
    async with running(state) as emulator, connected(emulator) as client:
        for block in BLOCKS:
            if _is_result(block):
                is_error = "isError" in block
                real = result if is_error else result["structuredContent"]
                if not is_error:
                    assert_valid("ask_claude", block)
                    assert block["text"] == real["text"]
                assert _shape(block) == _shape({name: real[name] for name in real if name in block})
                assert is_error or block.keys() == real.keys()
                real_ids |= dict(zip(_ids(block), _ids(real), strict=True))
                shown += 1
            else:
                called = await client.call_tool("ask_claude", _with(real_ids, block))
                result = called.model_dump(mode="json", by_alias=True, exclude_none=True)
                assert "repairs" not in result.get("structuredContent", {})
    assert shown


def _is_result(block: Mapping[str, Any]) -> bool:
    return "status" in block or "isError" in block


def _shape(value: object) -> object:
    """Return a value with types in place of texts and numbers, and without the server's name."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value).items()
        return {name: _shape(member) for name, member in members if "serverInfo" not in name}
    if isinstance(value, list):
        return [_shape(item) for item in cast("list[object]", value)]
    return type(value).__name__


def _ids(result: Mapping[str, Any]) -> list[str]:
    named = [result.get("conversation_id", ""), result.get("answer_id", "")]
    return [*named, *[call["id"] for call in result.get("tool_calls", ())]]


def _with(ids: Mapping[str, str], request: Mapping[str, Any]) -> dict[str, Any]:
    """Put the ids of the real results into the place of those that the page shows."""
    text = json.dumps(request)
    for shown, real in ids.items():
        text = text.replace(shown, real) if shown else text
    return json.loads(text)
