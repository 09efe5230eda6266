"""docs/examples: programs that a reader copies. `python -m tests.interop.examples` runs all."""

import sys
from pathlib import Path

import anyio
import pytest
from anyio import fail_after

from tests.interop.examples import FILES, FOLDER, dependencies, missing, with_kiro_mcp

PAGE = (FOLDER.parent / "agents.md").read_text("utf-8")
RUN_SECONDS = 60


@pytest.mark.parametrize("example", FILES, ids=lambda path: path.stem)
def test_an_example_is_short_compiles_and_says_how_to_run_it(example: Path) -> None:
    text = example.read_text("utf-8")
    assert len(text.splitlines()) <= 40
    compile(text, example, "exec")
    head, _, _ = text.partition("\n\n")
    assert f"uv run docs/examples/{example.name}" in head
    assert "--offline" in head
    assert f"(examples/{example.name})" in PAGE


async def test_the_plain_client_makes_a_tool_round_trip_and_collects_a_long_answer(
    tmp_path: Path,
) -> None:
    example = FOLDER / "mcp_client.py"
    assert dependencies(example) == []
    command = [sys.executable, str(example), "--offline"]
    with fail_after(RUN_SECONDS):
        done = await anyio.run_process(command, cwd=tmp_path, env=with_kiro_mcp())
    assert missing(example, done.stdout.decode()) == []
