"""Where clients keep their servers, what is written there, and which command lasts."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from kiro_mcp.auth.machine import Machine
from kiro_mcp.cli.app import commands
from kiro_mcp.cli.clients.config_file import servers, with_server, without_server
from kiro_mcp.cli.clients.edits import CannotEdit, Unparsable
from kiro_mcp.cli.clients.known import CLIENTS, Client, Entry
from kiro_mcp.cli.clients.launch import Launch, Running, is_lasting, lasting_launch, source_of
from kiro_mcp.cli.install import MAX_LINE, shown_change
from kiro_mcp.errors import InvalidRequest

HOME = Path("/home/me")
LAUNCH = Launch(command="/opt/kiro-mcp")


def machine(platform: str = "linux", **environ: str) -> Machine:
    return Machine(home=HOME, platform=platform, environ=environ)


# --- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "platform", "environ", "path"),
    [
        (
            "claude-desktop",
            "darwin",
            {},
            "Library/Application Support/Claude/claude_desktop_config.json",
        ),
        ("claude-desktop", "linux", {}, ".config/Claude/claude_desktop_config.json"),
        ("claude-desktop", "win32", {}, "AppData/Roaming/Claude/claude_desktop_config.json"),
        ("claude-desktop", "win32", {"APPDATA": "/a"}, "/a/Claude/claude_desktop_config.json"),
        ("claude-code", "darwin", {}, ".claude.json"),
        ("claude-code", "linux", {"CLAUDE_CONFIG_DIR": "/c"}, "/c/.claude.json"),
        ("vscode", "darwin", {}, "Library/Application Support/Code/User/mcp.json"),
        ("vscode", "linux", {"XDG_CONFIG_HOME": "/x"}, "/x/Code/User/mcp.json"),
        ("vscode", "win32", {"APPDATA": "/a"}, "/a/Code/User/mcp.json"),
        ("cursor", "win32", {}, ".cursor/mcp.json"),
        ("zed", "darwin", {"XDG_CONFIG_HOME": "/x"}, ".config/zed/settings.json"),
        ("zed", "linux", {"XDG_CONFIG_HOME": "/x"}, "/x/zed/settings.json"),
        ("zed", "win32", {"APPDATA": "/a"}, "/a/Zed/settings.json"),
        ("codex", "linux", {}, ".codex/config.toml"),
        ("codex", "linux", {"CODEX_HOME": "/c"}, "/c/config.toml"),
        ("kiro", "darwin", {}, ".kiro/settings/mcp.json"),
        ("windsurf", "linux", {}, ".codeium/windsurf/mcp_config.json"),
        ("gemini", "win32", {}, ".gemini/settings.json"),
        ("qwen", "darwin", {}, ".qwen/settings.json"),
        ("opencode", "darwin", {}, ".config/opencode/opencode.json"),
        ("opencode", "linux", {"XDG_CONFIG_HOME": "/x"}, "/x/opencode/opencode.json"),
        ("cline", "linux", {}, ".cline/data/settings/cline_mcp_settings.json"),
        ("cline", "linux", {"CLINE_DATA_DIR": "/c"}, "/c/settings/cline_mcp_settings.json"),
        ("goose", "darwin", {}, ".config/goose/config.yaml"),
        ("goose", "linux", {"XDG_CONFIG_HOME": "/x"}, "/x/goose/config.yaml"),
        ("goose", "win32", {"APPDATA": "/a"}, "/a/Block/goose/config/config.yaml"),
        ("goose", "linux", {"GOOSE_PATH_ROOT": "/g"}, "/g/config/config.yaml"),
        ("goose", "linux", {"GOOSE_PATH_ROOT": "g"}, ".config/goose/config.yaml"),
        ("lm-studio", "darwin", {}, ".lmstudio/mcp.json"),
    ],
)
def test_each_client_has_its_file_on_each_system(
    client: str, platform: str, environ: dict[str, str], path: str
) -> None:
    """The clients' documentation; for Zed and Codex their source."""
    assert CLIENTS[client].user_file(machine(platform, **environ)) == HOME / path


def test_a_packaged_claude_desktop_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """On Windows, a packaged program does not see %APPDATA%."""
    folder = tmp_path / "Packages" / "Claude_pzs8sxrjxfjjc" / "LocalCache" / "Roaming" / "Claude"
    folder.mkdir(parents=True)
    here = machine("win32", LOCALAPPDATA=str(tmp_path), APPDATA="/a")
    file = CLIENTS["claude-desktop"].user_file(here)
    assert file == folder / "claude_desktop_config.json"


def test_the_other_name_of_a_file_is_used_if_it_exists(tmp_path: Path) -> None:
    """It is for opencode, which reads `opencode.json` and `opencode.jsonc`."""
    here = machine("linux", XDG_CONFIG_HOME=str(tmp_path))
    assert CLIENTS["opencode"].user_file(here).name == "opencode.json"
    (tmp_path / "opencode").mkdir()
    (tmp_path / "opencode" / "opencode.jsonc").write_text("{}")
    assert CLIENTS["opencode"].user_file(here).name == "opencode.jsonc"


def test_without_a_home_the_error_names_the_cure() -> None:
    with pytest.raises(InvalidRequest, match="--file"):
        CLIENTS["kiro"].user_file(Machine(home=None, platform="linux", environ={}))


def test_the_command_line_lists_all_known_clients() -> None:
    """The command line has its own list of names, which keeps --help quick."""
    [client] = [one for one in commands.commands["install"].params if one.name == "client"]
    assert list(client.to_info_dict()["type"]["choices"]) == list(CLIENTS)


@pytest.mark.parametrize(
    ("client", "platform", "seen"),
    [
        ("cursor", "darwin", {"HOME": "/h", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}),
        ("cursor", "linux", {"HOME": "/h", "PATH": "/usr/local/bin:/usr/bin:/bin"}),
        ("cursor", "win32", {"HOME": "/h", "PATH": "/long"}),
        ("codex", "linux", {"HOME": "/h", "PATH": "/long"}),
        ("claude-code", "linux", {"HOME": "/h", "PATH": "/long", "KIRO_API_KEY": "k"}),
    ],
)
def test_a_client_passes_on_its_own_variables(
    client: str, platform: str, seen: dict[str, str]
) -> None:
    """A desktop starts programs without the variables of a shell."""
    here = machine(platform, HOME="/h", PATH="/long", KIRO_API_KEY="k")
    assert CLIENTS[client].inherited(here) == seen


# --- which command -------------------------------------------------------------------------------

CACHED = "/home/me/.cache/uv/archive-v0/AazAI/bin"
WINDOWS = "C:\\Users\\me"


def running(
    argv0: str,
    executable: str,
    *,
    platform: str = "linux",
    files: tuple[str, ...] = (),
    path: Mapping[str, tuple[str, ...]] | None = None,
    source: str | None = "",
    uv: str = "",
) -> Running:
    return Running(
        argv0=argv0,
        executable=executable,
        platform=platform,
        uv=uv,
        exists=lambda file: file in files,
        find=lambda name: (path or {}).get(name, ()),
        source=source,
    )


LAUNCHES = {
    "an installed script": (
        running(
            "/home/me/.local/bin/kiro-mcp", "/v/bin/python", files=("/home/me/.local/bin/kiro-mcp",)
        ),
        Launch(command="/home/me/.local/bin/kiro-mcp"),
    ),
    "the module, with its script beside": (
        running("/v/lib/kiro_mcp/__main__.py", "/v/bin/python", files=("/v/bin/kiro-mcp",)),
        Launch(command="/v/bin/kiro-mcp"),
    ),
    "the module alone": (
        running("/src/kiro_mcp/__main__.py", "/v/bin/python"),
        Launch(command="/v/bin/python", args=("-m", "kiro_mcp")),
    ),
    "Windows' script, named without its suffix": (
        running(
            f"{WINDOWS}\\bin\\kiro-mcp",
            f"{WINDOWS}\\python.exe",
            platform="win32",
            files=(f"{WINDOWS}\\bin\\kiro-mcp.exe",),
        ),
        Launch(command=f"{WINDOWS}\\bin\\kiro-mcp.exe"),
    ),
    "uvx": (
        running(
            f"{CACHED}/kiro-mcp",
            f"{CACHED}/python",
            files=(f"{CACHED}/kiro-mcp",),
            path={"kiro-mcp": (f"{CACHED}/kiro-mcp",), "uvx": ("/opt/uvx",)},
        ),
        Launch(command="/opt/uvx", args=("kiro-mcp",)),
    ),
    "uvx, while there is an installed one": (
        running(
            f"{CACHED}/kiro-mcp",
            f"{CACHED}/python",
            files=(f"{CACHED}/kiro-mcp",),
            path={"kiro-mcp": (f"{CACHED}/kiro-mcp", "/usr/bin/kiro-mcp"), "uvx": ("/opt/uvx",)},
        ),
        Launch(command="/usr/bin/kiro-mcp"),
    ),
    "uvx, from a checkout, while there is another one": (
        running(
            f"{CACHED}/kiro-mcp",
            f"{CACHED}/python",
            path={"kiro-mcp": ("/usr/bin/kiro-mcp",), "uvx": ("/opt/uvx",)},
            source="/home/me/src/kiro mcp",
        ),
        Launch(command="/opt/uvx", args=("--from", "/home/me/src/kiro mcp", "kiro-mcp")),
    ),
    "uvx, from nobody knows where": (
        running(f"{CACHED}/kiro-mcp", f"{CACHED}/python", path={"uvx": ("/opt/uvx",)}, source=None),
        None,
    ),
    "uvx that is not on PATH": (
        running(f"{CACHED}/kiro-mcp", f"{CACHED}/python", files=("/opt/uvx",), uv="/opt/uv"),
        Launch(command="/opt/uvx", args=("kiro-mcp",)),
    ),
    "pipx run": (
        running(
            "/home/me/.cache/pipx/1f2/bin/kiro-mcp",
            "/home/me/.cache/pipx/1f2/bin/python",
            path={"uvx": ("/opt/uvx",)},
        ),
        Launch(command="/opt/uvx", args=("kiro-mcp",)),
    ),
    "a cache, and nothing else": (running(f"{CACHED}/kiro-mcp", f"{CACHED}/python"), None),
}


@pytest.mark.parametrize(("how", "launch"), LAUNCHES.values(), ids=LAUNCHES)
def test_the_installed_command_lies_outside_of_caches(how: Running, launch: Launch | None) -> None:
    """A path into a cache is gone after the next clean-up."""
    assert lasting_launch(how) == launch


@pytest.mark.parametrize(
    ("document", "source"),
    [
        ("", ""),
        ('{"url": "file:///home/me/k%20m", "dir_info": {"editable": true}}', "/home/me/k m"),
        (
            '{"url": "file:///tmp/k-1-py3-none-any.whl", "archive_info": {}}',
            "/tmp/k-1-py3-none-any.whl",
        ),
        ('{"url": "file:///C:/src/k", "dir_info": {}}', "C:/src/k"),
        ('{"url": "https://a.example/k.whl", "archive_info": {}}', "https://a.example/k.whl"),
        (
            '{"url": "https://a.example/k.git", "subdirectory": "x",'
            ' "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            "git+https://a.example/k.git@abc#subdirectory=x",
        ),
        ("{", None),
        ("[]", None),
        ('{"url": 1}', None),
    ],
)
def test_the_source_of_a_package_is_written_for_uvx(document: str, source: str | None) -> None:
    """PEP 610; the package index leaves no such file."""
    assert source_of(document) == source


@pytest.mark.parametrize(
    ("path", "lasts"),
    [
        ("/home/me/.local/share/uv/tools/kiro-mcp/bin/kiro-mcp", True),
        ("/home/me/.local/share/pipx/venvs/kiro-mcp/bin/kiro-mcp", True),
        (f"{CACHED}/kiro-mcp", False),
        (f"{WINDOWS}\\AppData\\Local\\uv\\cache\\environments-v2\\x\\kiro-mcp.exe", False),
        ("/tmp/.tmpX/builds-v0/.tmpY/bin/kiro-mcp", False),
        ("/home/me/.local/pipx/.cache/1f2/bin/kiro-mcp", False),
        ("/Users/me/Library/Caches/pipx/1f2/bin/kiro-mcp", False),
    ],
)
def test_caches_are_distinguished_from_installations(path: str, lasts: bool) -> None:
    """Observed: uv 0.13 and pipx 1.8."""
    assert is_lasting(path) is lasts


# --- entries and documents -----------------------------------------------------------------------


def entry(members: object) -> Entry:
    return Entry(CLIENTS["kiro"], "kiro", members, HOME)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_an_entry_is_read_back_as_it_was_written(client: Client) -> None:
    """For each client."""
    text = with_server("", client, "kiro", client.entry_of(LAUNCH, {"A": "1"}, "kiro"))
    [(name, found)] = servers(text, client).items()
    read = entry(found)
    assert (name, read.launch, read.variables) == ("kiro", LAUNCH, {"A": "1"})
    assert read.is_ours
    assert servers(without_server(text, client, "kiro"), client) == {}


def test_entries_have_the_shape_of_their_client() -> None:
    """The clients' documentation: where the servers stand, and whether the transport is named."""
    shapes = {
        name: with_server("", client, "kiro", client.entry_of(LAUNCH, {}, "kiro"))
        for name, client in CLIENTS.items()
    }
    plain: dict[str, object] = {"command": "/opt/kiro-mcp", "args": []}
    typed: dict[str, object] = {"type": "stdio", **plain}
    usual = {client.id for client in CLIENTS.values() if client.key == "mcpServers"}
    for name in usual - {"claude-code"}:
        assert json.loads(shapes[name]) == {"mcpServers": {"kiro": plain}}
    assert json.loads(shapes["claude-code"]) == {"mcpServers": {"kiro": typed}}
    assert json.loads(shapes["vscode"]) == {"servers": {"kiro": typed}}
    assert json.loads(shapes["zed"]) == {"context_servers": {"kiro": plain}}
    local = {"type": "local", "command": ["/opt/kiro-mcp"]}
    assert json.loads(shapes["opencode"]) == {"mcp": {"kiro": local}}
    assert shapes["goose"].startswith('extensions:\n  kiro:\n    name: "kiro"\n    type: "stdio"\n')
    assert shapes["codex"] == '[mcp_servers.kiro]\ncommand = "/opt/kiro-mcp"\nargs = []\n'


@pytest.mark.parametrize(
    ("members", "launch", "ours"),
    [
        ({"command": "uvx", "args": ["kiro-mcp"]}, Launch(command="uvx", args=("kiro-mcp",)), True),
        (
            {"command": {"path": "/p", "args": ["-m", "kiro_mcp"]}},
            Launch(command="/p", args=("-m", "kiro_mcp")),
            True,
        ),
        (
            {"type": "local", "command": ["uvx", "kiro-mcp"]},
            Launch(command="uvx", args=("kiro-mcp",)),
            True,
        ),
        ({"command": "npx", "args": ["kiro", 1]}, Launch(command="npx", args=("kiro",)), False),
        ({"url": "http://127.0.0.1:8000/mcp"}, None, False),
        ({"command": ""}, None, False),
        ("text", None, False),
    ],
)
def test_our_entry_is_recognised_by_its_command(
    members: object, launch: Launch | None, ours: bool
) -> None:
    """Another server of the same name must not be overwritten."""
    assert (entry(members).launch, entry(members).is_ours) == (launch, ours)


def test_an_entry_can_be_switched_off_in_two_ways() -> None:
    """Kiro and Windsurf say disabled, Codex and Zed enabled."""
    assert entry({"disabled": True}).is_switched_off
    assert entry({"enabled": False}).is_switched_off
    assert not entry({"command": "x", "disabled": False, "enabled": True}).is_switched_off


@pytest.mark.parametrize("client", ["kiro", "codex", "goose"])
def test_an_existing_entry_keeps_the_users_own_members(client: str) -> None:
    """Only the command, its arguments and the variables that were named are changed."""
    known = CLIENTS[client]
    old = {
        **known.entry_of(Launch(command="uvx", args=("kiro-mcp",)), {"A": "1", "B": "1"}, "kiro"),
        "autoApprove": ["x"],
    }
    variables = "envs" if client == "goose" else "env"
    text = with_server("", known, "kiro", old)
    new = known.entry_of(LAUNCH, {"B": "2", "C": "3"}, "kiro")
    found = servers(with_server(text, known, "kiro", new), known)["kiro"]
    assert found == {**new, variables: {"A": "1", "B": "2", "C": "3"}, "autoApprove": ["x"]}
    without = known.entry_of(LAUNCH, {}, "kiro")
    again = servers(with_server(text, known, "kiro", without), known)["kiro"]
    assert again == {**old, **without}


def test_a_byte_order_mark_is_removed_and_line_endings_stay() -> None:
    """Editors on Windows write one, and some clients cannot read it."""
    text = with_server('\ufeff{\r\n  "a": 1\r\n}', CLIENTS["kiro"], "kiro", {"command": "x"})
    assert text.startswith("{\r\n")
    assert text.count("\n") == text.count("\r\n")
    gone = without_server(text, CLIENTS["kiro"], "kiro")
    assert gone == '{\r\n  "a": 1,\r\n  "mcpServers": {}\r\n}'


def test_a_file_with_comments_is_refused_for_a_client_without_them() -> None:
    """The client cannot read such a file anyway."""
    text = '{\n  // mine\n  "mcpServers": {}\n}'
    assert servers(text, CLIENTS["cursor"]) == {}
    with pytest.raises(Unparsable):
        servers(text, CLIENTS["claude-desktop"])


@pytest.mark.parametrize(
    "text", ["{}\n# mine\n", "extensions: {a: 1}\n", "a: &a\n  b: 1\nextensions: *a\n"]
)
def test_yaml_that_cannot_be_edited_safely_is_refused(text: str) -> None:
    with pytest.raises(CannotEdit):
        with_server(text, CLIENTS["goose"], "kiro", {"cmd": "x"})


@pytest.mark.parametrize("text", ["[]", '{"mcpServers": []}'])
def test_a_file_that_is_not_an_object_is_not_edited(text: str) -> None:
    with pytest.raises(CannotEdit):
        servers(text, CLIENTS["kiro"])
    with pytest.raises(CannotEdit):
        with_server(text, CLIENTS["kiro"], "kiro", {"command": "x"})


# --- the change, shown ---------------------------------------------------------------------------


def test_a_change_is_shown_without_the_secrets_of_any_server() -> None:
    """People paste it into reports."""
    secrets = ("ksk_0123456789abcdef", "ghp_0123456789", "hunter2", "sk-abc")
    before = (
        '{\n  "GITHUB_TOKEN": "ghp_0123456789",\n  "DB_PASSWORD": "hunter2",\n'
        '  "OPENAI_API_KEY": "sk-abc",\n  "KIRO_API_KEY": "old"\n}'
    )
    after = before.replace('"old"', '"ksk_0123456789abcdef"')
    shown = "\n".join(shown_change(before, after, "f"))
    assert shown.startswith("--- f\n+++ f\n")
    assert "GITHUB_TOKEN" in shown
    assert sum(line.startswith(("-  ", "+  ")) for line in shown.splitlines()) == 2
    assert not any(secret in shown for secret in secrets)
    for line in ("password = 'hunter2'", "API_KEY: hunter2", "- token: {a: hunter2}"):
        assert "hunter2" not in "\n".join(shown_change("", line, "f"))


def test_a_long_line_is_cut_off() -> None:
    """Some clients write megabytes into one line."""
    lines = list(shown_change("", "x" * 1_000_000, "f"))
    assert max(map(len, lines)) < 2 * MAX_LINE
