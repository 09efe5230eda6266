"""README and docs: commands can be run as they stand, examples are what the server takes and says.

A reader copies from them.
"""

import json
import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from anyio import fail_after

from kiro_mcp.cli.app import commands
from kiro_mcp.cli.clients.config_file import servers
from kiro_mcp.cli.clients.edits import as_object
from kiro_mcp.cli.clients.known import CLIENTS
from kiro_mcp.cli.clients.launch import Launch
from kiro_mcp.emulator import Send, frames, running
from kiro_mcp.emulator.kiro_cli import SCENES
from kiro_mcp.emulator.scripts import BUILT_IN
from tests.support.mcp import connected

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
CI = (ROOT / ".ci" / "run").read_text("utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in (*sorted(ROOT.glob("[RC]*.md")), *sorted((ROOT / "docs").glob("*.md")))
    if path.name != "CHANGELOG.md"
}
MAX_README_LINES = 200
MAX_PAGE_LINES = 250

BLOCKS = [
    (language, text)
    for page in PAGES.values()
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.M | re.S)
]
COMMANDS = list(
    dict.fromkeys(
        line.removeprefix("$ ").partition(" #")[0].strip()
        for language, text in BLOCKS
        if language == "console"
        for line in text.splitlines()
        if line.startswith("$ ")
    )
)
NAMED = sorted(set(re.findall(r"`(kiro-mcp [^`…]+)`", "\n".join(PAGES.values()))))
"""Commands in running text."""


def _json_blocks(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S)]


def _servers(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a client's configuration says of its servers; None for another document."""
    return document.get("mcpServers") or document.get("servers")


CONFIGURATIONS = [
    block
    for name in ("README.md", "docs/clients.md")
    for block in _json_blocks(PAGES[name])
    if _servers(block)
]


def _parsed(words: list[str]) -> click.Context:
    """Parse a command line of ours, to the last option, without running it."""
    if words[:1] == ["--env-file"]:
        words = words[2:]  # The reader's own file.
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
    """Return what follows `kiro-mcp` in a command of either way to run it."""
    words = shlex.split(command, comments=True)
    for runner in (["uv", "run"], []):
        if words[: len(runner) + 1] == [*runner, "kiro-mcp"]:
            return words[len(runner) + 1 :]
    return None


@pytest.mark.parametrize("command", [one for one in COMMANDS if _ours(one) is not None])
def test_each_command_of_ours_exists(command: str) -> None:
    assert _parsed(_ours(command) or []).command


OTHERS = (
    "uv sync", "uv build", "uv run ruff", "uv run pyright", "uv run pytest", "uv run python",
    "uv tool install", "docker build", "docker run", "git clone", ".ci/run",
    "export ANTHROPIC_", "claude", "codex plugin",
)  # fmt: skip


@pytest.mark.parametrize("command", [one for one in COMMANDS if _ours(one) is None])
def test_each_other_command_is_a_known_one(command: str) -> None:
    assert command.startswith(OTHERS)


@pytest.mark.parametrize("command", ['kiro-mcp ask --offline "Say hello"', "pytest"])
def test_the_two_commands_of_the_readme_are_run_by_ci(command: str) -> None:
    assert f"uv run {command}" in README
    assert f"uv run {command}" in CI.replace("uv run coverage run -m pytest", "uv run pytest")


@pytest.mark.parametrize("command", NAMED)
def test_each_command_in_running_text_exists(command: str) -> None:
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
    named = re.findall(r"(?<![\w-])--[\w-]+", command)
    assert set(named) <= {*options, "--help"}


def test_no_page_runs_a_package_name_that_anybody_could_take() -> None:
    """Before the first release, a stranger could register the name and get users' keys."""
    for name, page in PAGES.items():
        assert "uvx kiro-mcp" not in page.replace("Do not run `uvx kiro-mcp`", ""), name


@pytest.mark.parametrize("document", CONFIGURATIONS)
def test_each_configuration_starts_the_installed_program(document: dict[str, Any]) -> None:
    server = (_servers(document) or {})["kiro"]
    assert server["command"] == "kiro-mcp"
    assert "args" not in server


def test_codex_configuration_starts_the_installed_program() -> None:
    (text,) = [text for language, text in BLOCKS if language == "toml"]
    assert tomllib.loads(text)["mcp_servers"]["kiro"]["command"] == "kiro-mcp"


def test_goose_configuration_has_the_shape_that_install_writes() -> None:
    (text,) = [text for language, text in BLOCKS if language == "yaml"]
    goose, launch = CLIENTS["goose"], Launch(command="kiro-mcp")
    entry = servers(text, goose)["kiro"]
    written = goose.entry_of(launch, {"KIRO_API_KEY": "ksk_your_key"}, "kiro")
    assert {**as_object(entry), **written} == entry


def test_the_example_file_is_the_readmes_block_and_a_setting() -> None:
    """`mcp.json.example` is for those who copy files."""
    example = json.loads((ROOT / "mcp.json.example").read_text("utf-8"))
    (shown,) = [block for block in _json_blocks(README) if _servers(block)]
    env = example["mcpServers"]["kiro"].pop("env")
    assert shown["mcpServers"]["kiro"].pop("env").items() <= env.items()
    assert example == shown


def test_each_client_of_install_has_a_row() -> None:
    _, _, table = PAGES["docs/clients.md"].partition("| client | `install` | file |")
    assert sorted(re.findall(r"^\| [^|]+ \| `([\w-]+)` \|", table, re.M)) == sorted(CLIENTS)


async def test_the_readmes_call_gets_the_readmes_result() -> None:
    request, result = [block for block in _json_blocks(README) if not _servers(block)]
    (call,) = result["tool_calls"]
    answer = frames.text(result["text"]) + frames.tool_use(
        call["id"], call["name"], json.dumps(call["arguments"])
    )
    with fail_after(30):
        async with running() as emulator, connected(emulator) as client:
            emulator.state.enqueue((Send(answer + frames.ending()),))
            got = (await client.call_tool("ask_claude", request)).structured_content
    varies = ("conversation_id", "usage")
    assert {**got, **{name: result[name] for name in varies}} == result
    assert set(got["usage"]) - {"context_percent"} == set(result["usage"])


def _anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_each_link_inside_the_repository_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if ":" in link:
            continue
        file, _, anchor = link.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), link
        if anchor:
            assert anchor in _anchors(path.read_text("utf-8")), link


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_long(name: str) -> None:
    limit = MAX_README_LINES if name == "README.md" else MAX_PAGE_LINES
    assert len(PAGES[name].splitlines()) <= limit


def test_the_readme_links_every_page() -> None:
    assert [name for name in PAGES if name.startswith("docs/") and f"({name})" not in README] == []


@pytest.mark.parametrize("name", PAGES)
def test_each_module_that_a_page_names_exists(name: str) -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", PAGES[name])
    assert [
        file for file in named if not any((ROOT / top / file).is_file() for top in ("", "kiro_mcp"))
    ] == []


def test_the_picture_of_a_terminal_shows_what_the_commands_print() -> None:
    """`uv run python docs/terminal.py` draws it again."""
    terminal = runpy.run_path(str(ROOT / "docs" / "terminal.py"))
    drawn = terminal["draw"](terminal["run_commands"]())
    shown = terminal["PICTURE"].read_text("utf-8")
    assert terminal["words"](shown) == terminal["words"](drawn)


def test_each_script_of_the_emulator_is_named_once() -> None:
    """An author of tests looks here for a refusal."""
    table = PAGES["docs/testing.md"].partition("picks what happens:")[2].partition("\n\nA refusal")
    assert sorted(re.findall(r"`(\w+)`", table[0])) == sorted(BUILT_IN)


def test_each_scene_of_the_stand_in_is_named_once() -> None:
    table = PAGES["docs/testing.md"].partition("or one of these:")[2].partition("\n\nIt was")[0]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(SCENES)
