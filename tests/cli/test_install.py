"""`kiro-mcp install CLIENT`, as a person runs it, in a home of its own."""

import json
import os
import stat
import sys
import tomllib
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.auth.machine import Machine
from kiro_mcp.cli.clients import config_file
from kiro_mcp.cli.clients.known import CLIENTS, missing_credential
from kiro_mcp.errors import InvalidRequest
from tests.support.forked import run_forked
from tests.support.logins import Clock, sign_in_before
from tests.support.stdio import environment

RUN_SECONDS = 30
"""How long a command may take on a busy machine; it takes about half a second."""

KEY = "ksk_0123456789abcdef"
SCRIPT = str(Path(sys.executable).with_name("kiro-mcp"))

ZED = """\
// Zed settings
//
// For information on how to configure Zed, see the documentation.
{
  "ui_font_size": 16,
  "theme": {
    "mode": "system", // follows the desktop
    "light": "One Light",
  },
  /* servers */
  "context_servers": {
    "docs": { "command": "npx", "args": ["-y", "docs-mcp"], "env": { "DOCS_TOKEN": "hunter2" } },
  },
}
"""

CODEX = """\
model = "gpt-5"  # the usual one

[mcp_servers.docs]
command = "npx"
args = [
  "-y",
  "docs-mcp",  # pinned elsewhere
]

# What may be done without asking.
[projects."/home/me/src"]
trust_level = "trusted"
"""

GOOSE = """\
# Written by hand
GOOSE_MODE: smart_approve  # asks first

extensions:
  docs:
    type: stdio
    cmd: npx
    args: [-y, docs-mcp]
    envs:
      DOCS_TOKEN: hunter2
    enabled: true

# Where else to look for programs
GOOSE_SEARCH_PATHS:
  - ~/bin
"""


async def install(
    home: Path, *arguments: str, cwd: Path | None = None, **environ: str
) -> CompletedProcess[bytes]:
    variables = {"HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": "", **environ}
    with fail_after(RUN_SECONDS):
        return await run_forked("install", *arguments, env=environment(**variables), cwd=cwd)


def said(done: CompletedProcess[bytes]) -> str:
    return done.stdout.decode() + done.stderr.decode()


def backups(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.bak"))


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


async def test_a_first_installation_creates_the_file_and_names_the_next_step(
    tmp_path: Path,
) -> None:
    """The command is an absolute path that exists; the next step is to sign in."""
    done = await install(tmp_path, "cursor")
    assert done.returncode == 0, said(done)
    path = tmp_path / ".cursor" / "mcp.json"
    entry = json.loads(path.read_bytes())["mcpServers"]["kiro"]
    assert os.path.isabs(entry["command"])
    assert entry["command"] == SCRIPT
    assert entry["args"] == []
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert backups(path) == []
    text = said(done)
    assert "Cursor seems not to be installed here" in text
    assert f"+++ {path}" in text
    assert "Restart Cursor" in text
    assert "run `kiro-mcp login`" in text


async def test_a_second_installation_changes_nothing(tmp_path: Path) -> None:
    """Not even the time of the file changes."""
    await install(tmp_path, "codex")
    path = tmp_path / ".codex" / "config.toml"
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    done = await install(tmp_path, "codex")
    assert done.returncode == 0
    assert "is there already; nothing changed" in said(done)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert backups(path) == []


async def test_codex_keeps_the_users_startup_timeout(tmp_path: Path) -> None:
    """Only a new entry gets one."""
    await install(tmp_path, "codex")
    path = tmp_path / ".codex" / "config.toml"
    owned = path.read_text().replace("startup_timeout_sec = 60", "startup_timeout_sec = 5")
    path.write_text(owned)
    done = await install(tmp_path, "codex", "--env", "KIRO_MCP_MODEL=auto")
    assert done.returncode == 0, said(done)
    assert tomllib.loads(path.read_text())["mcp_servers"]["kiro"] == {
        **tomllib.loads(owned)["mcp_servers"]["kiro"],
        "env": {"KIRO_MCP_MODEL": "auto"},
    }


@pytest.mark.parametrize(
    ("client", "place", "before", "added"),
    [
        (
            "zed",
            ".config/zed/settings.json",
            ZED,
            [
                '    "kiro": {',
                f'      "command": "{SCRIPT}",',
                '      "args": []',
                "    },",
            ],
        ),
        (
            "zed",
            ".config/zed/settings.json",
            "\ufeff" + ZED.replace("\n", "\r\n").replace("  ", "\t"),
            ['\t\t"kiro": {', f'\t\t\t"command": "{SCRIPT}",', '\t\t\t"args": []', "\t\t},"],
        ),
        (
            "codex",
            ".codex/config.toml",
            CODEX,
            [
                "",
                "[mcp_servers.kiro]",
                f'command = "{SCRIPT}"',
                "args = []",
                "startup_timeout_sec = 60",
            ],
        ),
        (
            "goose",
            ".config/goose/config.yaml",
            "\ufeff" + GOOSE.replace("\n", "\r\n"),
            [
                "  kiro:",
                '    name: "kiro"',
                '    type: "stdio"',
                f'    cmd: "{SCRIPT}"',
                "    args: []",
                '    description: "Claude through your own Kiro subscription"',
                "    enabled: true",
                "    timeout: 300",
            ],
        ),
    ],
    ids=["Zed", "Zed on Windows", "Codex", "Goose on Windows"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="The places are those of Linux")
async def test_uninstalling_restores_the_file_from_before_installing(
    tmp_path: Path, client: str, place: str, before: str, added: list[str]
) -> None:
    """Comments, order, tabs and line ends are its owner's; a byte order mark breaks clients."""
    path = written(tmp_path / place, before)
    path.chmod(0o640)
    done = await install(tmp_path, client)
    assert done.returncode == 0, said(done)
    after = path.read_bytes().decode()
    owned = before.removeprefix("\ufeff")
    assert [line for line in after.splitlines() if line not in owned.splitlines()] == [
        line for line in added if line not in owned.splitlines()
    ]
    assert "\r\n".join(added) in after or "\n".join(added) in after
    assert ("\r\n" in before) == ("\r\n" in after)
    assert "hunter2" not in said(done)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    [backup] = backups(path)
    assert backup.read_bytes() == before.encode()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600  # It may hold an API key.
    assert f"Backup: {backup}, which only you can read." in said(done)
    gone = await install(tmp_path, client, "--uninstall")
    assert gone.returncode == 0, said(gone)
    assert path.read_bytes() == owned.encode()
    again = await install(tmp_path, client, "--uninstall")
    assert (again.returncode, "nothing changed" in said(again)) == (0, True)


async def test_a_dry_run_shows_the_change_and_writes_nothing(tmp_path: Path) -> None:
    done = await install(tmp_path, "claude-code", "--dry-run", "--env", f"KIRO_API_KEY={KEY}")
    assert done.returncode == 0
    assert '+      "type": "stdio",' in said(done)
    assert "Nothing was written" in said(done)
    assert KEY not in said(done)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Links need a privilege there")
async def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    """The file behind it is changed; the backup lies beside the link, not among dotfiles."""
    real = written(tmp_path / "dotfiles" / "mcp.json", '{"mcpServers": {}}')
    link = tmp_path / ".cursor" / "mcp.json"
    link.parent.mkdir()
    link.symlink_to(real)
    done = await install(tmp_path, "cursor")
    assert done.returncode == 0, said(done)
    assert link.is_symlink()
    assert "kiro" in json.loads(real.read_bytes())["mcpServers"]
    assert len(backups(link)) == 1
    assert sorted(real.parent.iterdir()) == [real]


async def test_a_variable_without_a_value_gets_its_value_here_and_hides_it(tmp_path: Path) -> None:
    """So a key appears neither in the shell's history nor on the screen."""
    arguments = ("kiro", "--env", "KIRO_API_KEY", "--env", "KIRO_MCP_MODEL=a=b", "--name", "k-1")
    done = await install(tmp_path, *arguments, KIRO_API_KEY=KEY)
    assert done.returncode == 0, said(done)
    path = tmp_path / ".kiro" / "settings" / "mcp.json"
    entry = json.loads(path.read_bytes())["mcpServers"]["k-1"]
    assert entry["env"] == {"KIRO_API_KEY": KEY, "KIRO_MCP_MODEL": "a=b"}
    assert KEY not in said(done)
    assert "kiro-mcp login" not in said(done)
    forced = await install(
        tmp_path, "kiro", "--name", "k-1", "--env", "KIRO_API_KEY=ksk_other12345678"
    )
    assert forced.returncode == 0
    assert said(forced).count("[redacted]") == 2


async def test_a_key_that_a_desktop_program_does_not_inherit_is_reported(tmp_path: Path) -> None:
    """It works in the shell, and the client would say that nobody is signed in."""
    done = await install(tmp_path, "windsurf", KIRO_API_KEY=KEY)
    assert "does not pass it on: add `--env KIRO_API_KEY`" in said(done)
    shell = await install(tmp_path, "claude-code", KIRO_API_KEY=KEY)
    assert "--env" not in said(shell)


async def test_a_variable_that_leads_to_a_login_here_only_is_named(tmp_path: Path) -> None:
    """Another login would be saved at the same place, where the client does not look."""
    await sign_in_before(tmp_path / "own", "")
    own = str(tmp_path / "own")
    done = await install(tmp_path, "cursor", KIRO_MCP_HOME=own)
    assert "does not pass it on: add `--env KIRO_MCP_HOME`." in said(done)
    assert "kiro-mcp login" not in said(done)
    environ = {"HOME": str(tmp_path), "KIRO_MCP_HOME": own}
    here = Machine(home=tmp_path, platform=sys.platform, environ=environ)
    given = CLIENTS["cursor"].inherited(here)
    assert missing_credential(here, given) == "KIRO_MCP_HOME"
    done = await install(tmp_path, "cursor", "--env", "KIRO_MCP_HOME", KIRO_MCP_HOME=own)
    assert "--env" not in said(done)


async def test_a_signed_in_user_is_not_told_to_sign_in(tmp_path: Path) -> None:
    await sign_in_before(tmp_path / ".local" / "share" / "kiro-mcp", "")
    done = await install(tmp_path, "cursor")
    assert "kiro-mcp login" not in said(done)


async def test_a_project_gets_its_own_file(tmp_path: Path) -> None:
    """In the folder where the command is run."""
    done = await install(
        tmp_path, "vscode", "--project", "--env", f"KIRO_API_KEY={KEY}", cwd=tmp_path
    )
    assert done.returncode == 0, said(done)
    document = json.loads((tmp_path / ".vscode" / "mcp.json").read_bytes())
    assert document["servers"]["kiro"]["type"] == "stdio"
    assert "do not commit it" in said(done)
    assert "seems not to be installed" not in said(done)


async def test_another_file_can_be_named(tmp_path: Path) -> None:
    """For forks of VS Code, and for other folders."""
    done = await install(tmp_path, "vscode", "--file", "~/a/mcp.json")
    assert done.returncode == 0, said(done)
    assert "kiro" in json.loads((tmp_path / "a" / "mcp.json").read_bytes())["servers"]


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ('{\n  "mcpServers": {\n    "a": {}\n    "b": {}\n  }\n}', "line 4, column 5"),
        ('{"mcpServers": []}', "'mcpServers' is not an object"),
        ("[]", "is not an object"),
        ('{"mcpServers": {"kiro": {"command": "npx", "args": ["other"]}}}', "--name"),
        ('{"mcpServers": {"kiro": {"url": "https://example.com/mcp"}}}', "--name"),
        ("\udcff", "(at byte 0); it was not changed. Save it as UTF-8 in an editor."),
    ],
    ids=["a comma is missing", "servers are a list", "a list", "another", "by HTTP", "no text"],
)
async def test_a_file_that_cannot_be_edited_is_left_alone(
    tmp_path: Path, before: str, says: str
) -> None:
    """With the place of the fault and the next step."""
    path = tmp_path / ".kiro" / "settings" / "mcp.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(before.encode("utf-8", "surrogateescape"))
    done = await install(tmp_path, "kiro")
    assert done.returncode == 2
    assert says in said(done)
    assert str(path) in said(done)
    assert "Traceback" not in said(done)
    assert path.read_bytes() == before.encode("utf-8", "surrogateescape")
    assert backups(path) == []


async def test_a_disabled_entry_stays_disabled_and_is_reported(tmp_path: Path) -> None:
    """The user has disabled it."""
    await install(tmp_path, "kiro")
    path = tmp_path / ".kiro" / "settings" / "mcp.json"
    document = json.loads(path.read_bytes())
    document["mcpServers"]["kiro"]["disabled"] = True
    path.write_text(json.dumps(document))
    done = await install(tmp_path, "kiro")
    assert "warning: 'kiro' is switched off in that file" in said(done)
    assert json.loads(path.read_bytes()) == document


async def test_goose_gets_a_second_server_and_changes_only_what_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".config" / "goose" / "config.yaml"
    await install(tmp_path, "goose", "--env", f"KIRO_API_KEY={KEY}")
    path.write_text(path.read_text().replace("enabled: true", "enabled: false # for now"))
    before = path.read_text()
    done = await install(tmp_path, "goose")
    assert "nothing changed" in said(done)
    assert "warning: 'kiro' is switched off in that file" in said(done)
    assert path.read_text() == before
    await install(tmp_path, "goose", "--name", "other")
    done = await install(tmp_path, "goose", "--env", "KIRO_API_KEY=ksk_other12345678")
    assert done.returncode == 0, said(done)
    assert KEY not in said(done)
    after = path.read_text()
    assert after.startswith(before.replace(KEY, "ksk_other12345678"))
    assert '\n  other:\n    name: "other"\n' in after


async def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / ".config" / "goose" / "config.yaml", "a: 1\nextensions: [\n")
    done = await install(tmp_path, "goose")
    assert done.returncode == 2
    assert f"{path}, line 3, column 1: " in said(done)
    assert path.read_text() == "a: 1\nextensions: [\n"
    assert backups(path) == []


async def test_uninstalling_leaves_an_empty_list_of_servers(tmp_path: Path) -> None:
    """It may have been there before."""
    path = written(tmp_path / ".cursor" / "mcp.json", '{\n  "mcpServers": {}\n}\n')
    await install(tmp_path, "cursor")
    assert (await install(tmp_path, "cursor", "--uninstall")).returncode == 0
    assert path.read_text() == '{\n  "mcpServers": {}\n}\n'


async def test_another_server_of_the_same_name_is_not_removed(tmp_path: Path) -> None:
    before = '{"mcpServers": {"kiro": {"url": "https://example.com/mcp"}}}'
    path = written(tmp_path / ".cursor" / "mcp.json", before)
    done = await install(tmp_path, "cursor", "--uninstall")
    assert done.returncode == 2
    assert "another server 'kiro'" in said(done)
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope",), "'claude-desktop'"),
        (("windsurf", "--project"), "no configuration of its own for a project"),
        (("cursor", "--project", "--file", "x"), "cannot be used together"),
        (("cursor", "--name", "my kiro"), "'my kiro' cannot be the name"),
        (("cursor", "--env", "A B=1"), "'A B' is not the name of a variable"),
        (("cursor", "--env", "NOT_SET_ANYWHERE"), "it is not set here"),
        (("cursor", "--env", "A=1\n2"), "unprintable"),
        (("cursor", "--env", "KIRO_MCP_PORT=x"), "KIRO_MCP_PORT"),
        (("cursor", "--file", "."), "cannot be read"),
    ],
)
async def test_a_wrong_option_is_reported_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    """README's exit codes."""
    done = await install(tmp_path, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in said(done)
    assert "Traceback" not in said(done)
    files_left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert files_left in ([], ["install.lock"])  # The lock keeps installations apart.


async def test_a_misspelt_setting_is_a_warning(tmp_path: Path) -> None:
    """The client would pass it on, and it would have no effect."""
    done = await install(tmp_path, "cursor", "--env", "KIRO_MCP_MODLE=x")
    assert done.returncode == 0
    assert "Did you mean KIRO_MCP_MODEL?" in said(done)


# --- the file ------------------------------------------------------------------------------------


def test_a_file_that_another_program_has_changed_is_not_replaced(tmp_path: Path) -> None:
    """Claude Code writes its own file while it runs."""
    path = written(tmp_path / ".claude.json", "{}")
    before = config_file.read(path)
    path.write_text('{"numStartups": 2}')
    with pytest.raises(InvalidRequest, match="has just changed"):
        config_file.replace(before, "{1}", Clock().now)
    assert path.read_text() == '{"numStartups": 2}'
    assert backups(path) == []


def test_backups_of_the_same_second_get_different_names(tmp_path: Path) -> None:
    """An existing backup is not overwritten."""
    path = written(tmp_path / "f", "0")
    for number in range(1, 4):
        config_file.replace(config_file.read(path), str(number), Clock().now)
    assert [backup.read_text() for backup in backups(path)] == ["1", "2", "0"]
    assert path.read_text() == "3"


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    """Replacing the file would undo that."""
    path = written(tmp_path / "f", "0")
    path.chmod(0o444)
    with pytest.raises(InvalidRequest, match="write-protected"):
        config_file.replace(config_file.read(path), "1", Clock().now)
    assert path.read_text() == "0"
    assert backups(path) == []


async def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Opening it would wait for a writer."""
    path = tmp_path / ".cursor" / "mcp.json"
    path.parent.mkdir()
    os.mkfifo(path)
    done = await install(tmp_path, "cursor")
    assert done.returncode == 2
    assert f"{path} cannot be read (it is not a regular file)" in said(done)


async def test_parallel_installations_are_all_saved(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        for name in ("one", "two", "three"):
            tasks.start_soon(install, tmp_path, "cursor", "--name", name)
    document = json.loads((tmp_path / ".cursor" / "mcp.json").read_bytes())
    assert sorted(document["mcpServers"]) == ["one", "three", "two"]


async def test_the_change_is_shown_without_passwords_and_headers(tmp_path: Path) -> None:
    done = await install(
        tmp_path,
        "codex",
        "--dry-run",
        *("--env", "KIRO_MCP_PROXY_URL=http://me:hunter2@proxy.example:1"),
        *("--env", 'KIRO_MCP_EXTRA_HEADERS={"X-Team": "hunter2", "X-Other": "hunter2"}'),
    )
    assert done.returncode == 0, said(done)
    assert "hunter2" not in said(done)
    assert "proxy.example:1" in said(done)
    assert "KIRO_MCP_EXTRA_HEADERS" in said(done)
    as_json = await install(
        tmp_path,
        *("cursor", "--dry-run"),
        *("--env", 'KIRO_MCP_EXTRA_HEADERS={"X-Team": "hunter2"}'),
        *("--env", "KIRO_MCP_MODEL=auto"),
    )
    assert "hunter2" not in said(as_json)
    assert "auto" in said(as_json)
