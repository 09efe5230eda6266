"""The list of tools and the server's description, as clients get them."""

import json
import struct
from base64 import b64decode
from collections.abc import Iterator
from typing import Any, cast

import mcp_types as types
import pytest
from jsonschema import Draft202012Validator

from kiro_mcp._version import __version__
from kiro_mcp.server.faststart import read_answers
from kiro_mcp.server.tools import declarations
from tests.server.faststart_answers import FILE
from tests.support.mcp import connected

LISTED = read_answers(FILE.read_bytes())["2025-11-25"]["tools/list"]
MAX_LISTED_BYTES = 9000
MAX_ICON_BYTES = 500
MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
FORBIDDEN_KEYWORDS = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "format"}


def keywords(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        for name, inner in cast("dict[str, object]", schema).items():
            yield name
            yield from keywords(inner)
    elif isinstance(schema, list):
        for inner in cast("list[object]", schema):
            yield from keywords(inner)


def test_the_list_of_tools_is_small() -> None:
    """It lies in the context of every conversation of every client."""
    compact = json.dumps(LISTED, ensure_ascii=False, separators=(",", ":"))
    assert len(compact.encode()) <= MAX_LISTED_BYTES


@MODES
async def test_clients_get_the_list_that_is_kept_and_always_in_the_same_order(mode: str) -> None:
    """A client caches the list, and a model's prompt cache depends on it."""
    async with connected(mode=mode) as client:
        first, second = [(await client.list_tools()).tools for _ in range(2)]
    assert [tool.name for tool in first] == ["ask_claude", "list_models", "login"]
    assert first == second
    got = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in first]
    assert got == LISTED["tools"]


@pytest.mark.parametrize("tool", declarations(), ids=lambda tool: tool.name)
def test_a_tools_declaration_is_complete_and_flat(tool: types.Tool) -> None:
    """Observed: clients fail on references and combinators, and models on bare names."""
    assert len(tool.name) <= 20
    assert tool.name.replace("_", "").isalpha()
    assert tool.title
    assert tool.description
    assert tool.output_schema
    for schema in (tool.input_schema, tool.output_schema):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert not FORBIDDEN_KEYWORDS & set(keywords(schema))
    for declared in tool.input_schema["properties"].values():
        assert declared["description"]


@pytest.mark.parametrize(
    ("tool", "read_only", "destructive", "idempotent"),
    [
        ("ask_claude", True, None, None),
        ("list_models", True, None, None),
        ("login", False, False, True),
    ],
)
def test_a_tools_annotations_say_what_it_may_change(
    tool: str, read_only: bool, destructive: bool | None, idempotent: bool | None
) -> None:
    """The MCP specification: the last two mean nothing where a tool only reads."""
    [annotations] = [one.annotations for one in declarations() if one.name == tool]
    assert annotations == types.ToolAnnotations(
        read_only_hint=read_only,
        destructive_hint=destructive,
        idempotent_hint=idempotent,
        open_world_hint=True,
    )


async def test_no_result_of_a_call_carries_the_icon() -> None:
    """MCP 2026-07-28 stamps each result with the server's description."""
    async with connected(mode="2026-07-28") as client:
        result = await client.call_tool("list_models", {})
    stamp: dict[str, Any] = (result.meta or {})[types.SERVER_INFO_META_KEY]
    assert stamp["name"] == "kiro-mcp"
    assert "icons" not in stamp


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_server_says_who_it_is_and_shows_a_small_icon(mode: str) -> None:
    """MCP 2025-11-25: an icon is a data address or https; every client that shows one reads PNG."""
    async with connected(mode=mode) as client:
        info: Any = client.server_info
    assert (info.name, info.version, bool(info.title)) == ("kiro-mcp", __version__, True)
    [icon] = info.icons
    head, _, encoded = icon.src.partition(",")
    image = b64decode(encoded, validate=True)
    assert head == f"data:{icon.mime_type};base64"
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert icon.sizes == ["{}x{}".format(*struct.unpack_from(">II", image, 16))]
    assert len(image) <= MAX_ICON_BYTES
