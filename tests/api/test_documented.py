"""The tables of docs/api.md beside the readers."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kiro_mcp.api import chat_completions, messages, responses
from kiro_mcp.chat import JsonObject
from kiro_mcp.errors import InvalidRequest
from tests.support.api import CHAT, MESSAGES, RESPONSES, question

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
ROW = re.compile(r"^\| (`.*?) \| (honoured|told|ignored|refused) \|", re.MULTILINE)
SHAPES = [(CHAT, chat_completions), (RESPONSES, responses), (MESSAGES, messages)]


class Body(dict[str, Any]):
    """The body of a request that notes which members are read."""

    def __init__(self, members: JsonObject) -> None:
        super().__init__(members)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def documented(path: str) -> dict[str, str]:
    """What the page says becomes of each member."""
    section = PAGE.read_text("utf-8").partition(f"### `POST {path}`")[2].partition("\n#")[0]
    return {
        name: verdict
        for names, verdict in ROW.findall(section)
        for name in re.findall(r"`(\w+)`", names)
    }


@pytest.mark.parametrize(("path", "shape"), SHAPES, ids=[path for path, _ in SHAPES])
def test_each_member_that_is_read_is_documented_and_the_others_are_ignored(
    path: str, shape: ModuleType
) -> None:
    body = Body(question(path, "hello"))
    asked = shape.read(body)
    body.read.add("stream_options") if path == CHAT else None  # The writer reads it.
    assert asked.model
    said = documented(path)
    assert body.read == {name for name, verdict in said.items() if verdict != "ignored"}


@pytest.mark.parametrize(("path", "shape"), SHAPES, ids=[path for path, _ in SHAPES])
def test_each_member_that_is_documented_as_refused_is_refused_by_name(
    path: str, shape: ModuleType
) -> None:
    for name in (name for name, verdict in documented(path).items() if verdict == "refused"):
        with pytest.raises(InvalidRequest, match=f"^{name} is "):
            shape.read(question(path, "hello", **{name: 2}))
