"""The package as other programs import it."""

import subprocess
import sys

import pytest
from anyio import fail_after

import kiro_mcp
from kiro_mcp.emulator import EMULATOR_API_KEY, running


@pytest.mark.parametrize("name", kiro_mcp.__all__)
def test_every_name_that_is_promised_is_there(name: str) -> None:
    assert getattr(kiro_mcp, name)
    assert name in dir(kiro_mcp)


def test_another_name_is_missed_as_in_any_module() -> None:
    """PEP 562."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(kiro_mcp, "nothing")  # noqa: B009  # A name that type checkers must not see.


def test_importing_the_package_imports_nothing_else() -> None:
    """`--version` and every start go through it."""
    code = "import sys; before = set(sys.modules); import kiro_mcp; print(*set(sys.modules)-before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    ours = [name for name in done.stdout.decode().split() if name.startswith("kiro_mcp")]
    assert sorted(ours) == ["kiro_mcp", "kiro_mcp._version"]
    assert b"mcp_types" not in done.stdout


async def test_a_program_can_ask_and_read_the_answer_as_it_comes() -> None:
    """The example of the package's docstring."""
    message = kiro_mcp.Message(role="user", parts=(kiro_mcp.TextPart(text="Say hello"),))
    request = kiro_mcp.ChatRequest(messages=(message,))
    with fail_after(30):
        async with running() as emulator:
            environ = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": EMULATOR_API_KEY}
            async with kiro_mcp.open_client(environ) as client, client.stream(request) as answer:
                deltas = [delta async for delta in answer]
            reply = answer.reply
    said = "".join(delta.text for delta in deltas if isinstance(delta, kiro_mcp.TextDelta))
    assert said == reply.text
    assert "Say hello" in said
