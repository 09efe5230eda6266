"""README: each command can be run as it stands, each block of configuration is what it says."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from kiro_mcp.cli.app import commands
from kiro_mcp.emulator.scripts import BUILT_IN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
CI = (ROOT / ".ci" / "run").read_text("utf-8")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
BLOCKS = [(language, text) for language, text in _BLOCK.findall(README)]
COMMANDS = [
    line.removeprefix("$ ").partition(" #")[0].strip()
    for language, text in BLOCKS
    if language == "console"
    for line in text.splitlines()
    if line.startswith("$ ")
]
NAMED = re.findall(r"`(kiro-mcp [^`…]+)`", README)
"""Commands in running text."""


def _blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def _parsed(words: list[str]) -> click.Context:
    """Parse a command line of ours, to the last option, without running it."""
    context = commands.make_context("kiro-mcp", list(words))
    rest = [*context._protected_args, *context.args]  # pyright: ignore[reportPrivateUsage]  # click has no public name for what a group leaves to its command
    while rest:
        group = context.command
        assert isinstance(group, click.Group)
        _, command, arguments = group.resolve_command(context, rest)
        assert command
        context = command.make_context(command.name, arguments, parent=context)
        rest = []
    return context


def _ours(command: str) -> list[str] | None:
    """Return what follows `kiro-mcp` in a command of any of the ways to run it."""
    words = shlex.split(command, comments=True)
    for runner in (["uv", "run"], ["uvx"], []):
        if words[: len(runner) + 1] == [*runner, "kiro-mcp"]:
            return words[len(runner) + 1 :]
    return None


@pytest.mark.parametrize("command", [one for one in COMMANDS if _ours(one) is not None])
def test_each_command_of_ours_is_one_that_there_is(command: str) -> None:
    """A reader copies it."""
    assert _parsed(_ours(command) or []).command


@pytest.mark.parametrize("command", [one for one in COMMANDS if _ours(one) is None])
def test_each_other_command_is_run_by_ci_or_starts_this_server(command: str) -> None:
    """What ends in our own command must be one that there is."""
    words = shlex.split(command, comments=True)
    if "--" in words:  # A client's command, which is told how to start us.
        assert words[words.index("--") + 1 :] == ["uvx", "kiro-mcp"]
    elif words[0] in ("docker", "npx", "uv") and words[1] != "run":
        assert "kiro-mcp" in words or "packaging" in command
    else:
        # CI counts coverage besides.
        assert command.replace("uv run pytest", "uv run coverage run -m pytest") in CI


@pytest.mark.parametrize("command", NAMED)
def test_each_command_in_running_text_is_one_that_there_is(command: str) -> None:
    """Capitals stand for what the reader fills in; square brackets for what may be left out."""
    plain = re.sub(r"\[[^]]*\]", "", command.replace("\\|", "|"))
    words = shlex.split(plain)[1:]
    if not words or words[0].startswith("-"):
        return
    assert words[0] in commands.commands
    options = {
        option
        for parameter in commands.commands[words[0]].params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    told = re.findall(r"(?<![\w-])--[\w-]+", command)
    assert set(told) <= {*options, "--help"}


@pytest.mark.parametrize("text", _blocks("json"))
def test_each_json_block_starts_the_server_by_its_name(text: str) -> None:
    """A reader pastes it."""
    document: dict[str, Any] = json.loads(text)
    servers = next(
        value
        for name, value in document.items()
        if name.lower().replace("_", "").endswith("servers")
    )
    assert servers["kiro"]["command"] == "uvx"
    assert servers["kiro"]["args"] == ["kiro-mcp"]


def test_the_example_file_is_the_first_block_and_a_setting() -> None:
    """`mcp.json.example` is what README shows, for those who copy files."""
    example = json.loads((ROOT / "mcp.json.example").read_text("utf-8"))
    shown = json.loads(_blocks("json")[0])
    env = example["mcpServers"]["kiro"].pop("env")
    assert shown["mcpServers"]["kiro"].pop("env").items() <= env.items()
    assert example == shown


@pytest.mark.parametrize("text", _blocks("toml"))
def test_each_toml_block_starts_the_server_by_its_name(text: str) -> None:
    """A reader pastes it."""
    server = tomllib.loads(text)["mcp_servers"]["kiro"]
    assert (server["command"], server["args"]) == ("uvx", ["kiro-mcp"])


def test_each_module_of_the_map_is_there() -> None:
    """A reader opens it."""
    _, _, text = README.partition("## Map of the package")
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert named
    assert [name for name in named if not (ROOT / "kiro_mcp" / name).is_file()] == []


def test_each_file_that_contributors_are_sent_to_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`(\w+/[\w/]+\.py)`", text)
    assert named
    places = [(ROOT / name, ROOT / "kiro_mcp" / name) for name in named]
    assert [place for place, other in places if not (place.is_file() or other.is_file())] == []


def test_each_script_of_the_emulator_is_named_once() -> None:
    """Whoever writes a test looks for the refusal that it needs."""
    table = README.partition("`/emulate NAME` picks what happens:")[2].partition("\n\nA refusal")[0]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(BUILT_IN)
