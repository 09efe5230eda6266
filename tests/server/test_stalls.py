"""No input of a caller or the service stops a call or the others from being answered."""

import pytest

from kiro_mcp.emulator import RunningEmulator, Send
from kiro_mcp.emulator.state import GENERATE
from tests.benchmarks.stall_inputs import INPUTS
from tests.support.mcp import connected, words


@pytest.mark.parametrize("part", range(16))
async def test_each_hostile_input_gets_an_answer(part: int, emulator: RunningEmulator) -> None:
    """`tests.benchmarks.stalls` measures how long other calls wait."""
    small = [one for one in INPUTS if not one.is_large]
    async with connected(emulator) as client:
        for one in small[part::16]:
            while emulator.state.take_queued(GENERATE):
                pass  # Another input was refused before it was sent.
            emulator.state.enqueue((Send(one.answer()),))
            assert words(await client.call_tool("ask_claude", one.arguments())), one.name
