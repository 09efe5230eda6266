"""An MCP client on our server in this process, and what its results say."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, cast

import mcp_types as types
from anyio import fail_after
from jsonschema import Draft202012Validator
from mcp.client import Client

from kiro_mcp._version import __version__
from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.results import ANSWER_META_KEY, ERROR_META_KEY
from kiro_mcp.server.tools import declarations

CALL_SECONDS = 20
"""How long a test's calls may take together on a busy machine."""


SLOW_TO_CHECK: dict[str, Any] = {
    "$defs": {
        **{f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)},
        "a40": {"required": ["product"]},
    },
    "$ref": "#/$defs/a0",
}
"""A schema whose violations are a million millions, and a checker lists them all."""


@asynccontextmanager
async def connected(
    emulator: RunningEmulator | None = None, *, mode: str = "2026-07-28", **environ: str
) -> AsyncGenerator[Client]:
    """Connect a client to a server with these settings; with an emulator, signed in to it."""
    if emulator:
        environ = {
            "KIRO_MCP_ENDPOINT_URL": emulator.url,
            "KIRO_API_KEY": EMULATOR_API_KEY,
            **environ,
        }
    environ.setdefault("KIRO_MCP_MAX_RETRIES", "0")  # Or a test would wait as a person does.
    with fail_after(CALL_SECONDS):
        async with Client(build_server(lambda: Engine.from_environ(environ)), mode=mode) as client:
            # Each client would check and compile the output schemas itself, which takes longer than
            # most tests. `tests.server.test_stdio` has clients that do it.
            session: Any = client.session
            session._tool_output_schemas.update(_output_schemas())
            session._tool_output_validators.update(_validators())
            yield client


async def ask(client: Client, **arguments: Any) -> dict[str, Any]:
    """Ask, and return the structured result, checked against its schema."""
    return (await ask_with_id(client, **arguments))[0]


async def ask_with_id(client: Client, **arguments: Any) -> tuple[dict[str, Any], str]:
    """Ask, and return the structured result and the id under which the answer is stored."""
    result = await client.call_tool("ask_claude", arguments)
    assert not result.is_error, words(result)
    assert_valid("ask_claude", result.structured_content)
    return result.structured_content, (result.meta or {}).get(ANSWER_META_KEY, "")


def extras(content: Sequence[str], text: str) -> dict[str, Any]:
    """Return what follows the answer's text in the only block of a result's content."""
    (block,) = content
    line = block.removeprefix(text).removeprefix("\n\n")
    assert block in (text, line, f"{text}\n\n{line}")
    assert "\n" not in line
    return json.loads(line or "{}")


def words(result: types.CallToolResult) -> str:
    """Return what a client that reads only content shows."""
    return "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))


def code(result: types.CallToolResult) -> str:
    """Return the code of an error result."""
    assert result.is_error
    assert result.structured_content is None
    facts = cast("dict[str, Any]", (result.meta or {})[ERROR_META_KEY])
    assert words(result).startswith(f"{facts['code']}: ")
    return facts["code"]


def assert_valid(tool: str, structured: object) -> None:
    """Check a result against the schema that its tool declares."""
    _validators()[tool].validate(structured)


@cache
def _output_schemas() -> dict[str, Any]:
    return {tool.name: tool.output_schema for tool in declarations()}


@cache
def _validators() -> dict[str, Any]:
    return {name: Draft202012Validator(schema) for name, schema in _output_schemas().items()}


def assert_describes_the_server(found: dict[str, Any]) -> None:
    """Check what `server/discover` answers, as it came over the wire."""
    info = found["_meta"]["io.modelcontextprotocol/serverInfo"]
    assert (info["name"], info["version"]) == ("kiro-mcp", __version__)
    assert info["title"]
    assert info["icons"]
    assert found["instructions"]
    assert {"tools", "resources", "prompts", "completions"} <= set(found["capabilities"])
    assert "2026-07-28" in found["supportedVersions"]
    assert found["resultType"] == "complete"
    assert (found["ttlMs"], found["cacheScope"]) == (3_600_000, "public")


def sent(emulator: RunningEmulator) -> dict[str, Any]:
    """Return the body of the last request that reached the emulator."""
    return cast("dict[str, Any]", emulator.state.requests[-1].body)
