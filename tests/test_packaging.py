"""What is published: templates that name no owner, and a script that makes a release of them."""

import base64
import json
import re
import runpy
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import anyio
import pytest
from anyio import fail_after
from anyio.abc import Process
from jsonschema import Draft7Validator

from kiro_mcp.__main__ import main
from kiro_mcp._version import __version__
from kiro_mcp.server.tools import declarations
from kiro_mcp.settings import Settings, variables
from tests.support.settings import meanings
from tests.support.stdio import COMMAND, environment, started

ROOT = Path(__file__).parent.parent
PACKAGING = ROOT / "packaging"
SCRIPT = PACKAGING / "release.py"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SERVER = json.loads((PACKAGING / "server.json").read_text("utf-8"))
MANIFEST = json.loads((PACKAGING / "mcpb" / "manifest.json").read_text("utf-8"))
DOCKERFILE = re.sub(
    r"^#.*\n|\\\n *", "", (PACKAGING / "Dockerfile").read_text("utf-8"), flags=re.M
).splitlines()

OWNER, NAME = "example-owner", "example-repository"
REPOSITORY = f"https://github.com/{OWNER}/{NAME}"
REGISTRY_NAME = f"io.github.{OWNER}/{NAME}"

RUN_SECONDS = 30
"""How long a process may take on a busy machine; it takes about one second."""

BUILD_SECONDS = 180
"""How long a release may take; it takes a few seconds, longer if uv must download hatchling."""

_script = runpy.run_path(str(SCRIPT))
app_links: dict[str, str] = _script["app_links"]()
web_links: dict[str, str] = _script["web_links"]()

PLAIN = {"command": "uvx", "args": ["kiro-mcp"]}
VSCODE = {
    "inputs": [
        {"type": "promptString", "id": "kiro-key", "description": "Kiro API key", "password": True}
    ],
    "servers": {
        "kiro": {"type": "stdio", **PLAIN, "env": {"KIRO_API_KEY": "${input:kiro-key}"}},
    },
}

SERVER_RULES: dict[str, Any] = {
    "type": "object",
    "required": ["$schema", "name", "description", "version", "packages"],
    "properties": {
        "name": {"pattern": "^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$", "maxLength": 200},
        "title": {"minLength": 1, "maxLength": 100},
        "description": {"minLength": 1, "maxLength": 100},
        "repository": {"required": ["url", "source"]},
        "packages": {
            "minItems": 1,
            "items": {
                "required": ["registryType", "identifier", "version", "transport"],
                "properties": {
                    "registryType": {"enum": ["pypi"]},
                    "version": {"pattern": r"^\d+\.\d+\.\d+"},
                    "transport": {"required": ["type"], "properties": {"type": {"const": "stdio"}}},
                    "environmentVariables": {
                        "items": {
                            "required": ["name", "description"],
                            "properties": {"isSecret": {"type": "boolean"}},
                        }
                    },
                },
            },
        },
    },
}
"""What the registry's reference for `server.json` (2025-12-11) requires and bounds, as used here.

https://github.com/modelcontextprotocol/registry/tree/main/docs/reference/server-json
"""


def violations(schema: dict[str, Any], value: object) -> list[str]:
    validator: Any = Draft7Validator(schema)
    return [error.message for error in validator.iter_errors(value)]


def git_files() -> list[Path]:
    """Return the repository's files; outside of a clone, all that an archive has."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a clone")
    listed = anyio.run(anyio.run_process, ["git", "-C", str(ROOT), "ls-files", "-z"])
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_no_file_names_an_owner_or_a_namespace_of_this_project() -> None:
    """A stranger could register an invented name and run in users' clients, with their keys."""
    hosted = r"(?:github\.com[/:]|ghcr\.io/)[\w.-]+/kiro[-_]mcp"
    registered = r"io\.github\.(?!OWNER)[\w-]|mcp-name: \w"
    for file in filter(Path.is_file, git_files()):
        found = re.search(f"{hosted}|{registered}", file.read_text("utf-8", errors="replace"), re.I)
        assert not found, f"{file}: {found[0]}"


def test_the_templates_leave_out_what_a_release_fills_in() -> None:
    """A second version could be forgotten, and a URL would be invented."""
    assert "urls" not in PROJECT
    assert not SERVER.keys() & {"name", "version", "websiteUrl", "repository"}
    assert not MANIFEST.keys() & {"version", "repository", "homepage", "documentation", "support"}


def test_everything_that_is_published_has_the_packages_name() -> None:
    assert SERVER["packages"][0]["identifier"] == PROJECT["name"]
    assert MANIFEST["name"] == PROJECT["name"]
    assert PROJECT["name"] in PROJECT["scripts"]


def test_the_command_that_is_installed_is_the_program() -> None:
    """The packaging user guide: entry points for console scripts."""
    (command,) = entry_points(group="console_scripts", name="kiro-mcp")
    assert command.load() is main


# --- a release ----------------------------------------------------------------------------


class Release(NamedTuple):
    """A release of an example: its folder, and what the script printed."""

    folder: Path
    printed: str

    def read(self, file: str) -> str:
        return (self.folder / file).read_text("utf-8")


async def run_script(*arguments: str) -> tuple[int, str]:
    """Return the script's exit code and what it prints."""
    with fail_after(BUILD_SECONDS):
        done = await anyio.run_process(
            [sys.executable, str(SCRIPT), *arguments], check=False, stderr=STDOUT
        )
    return done.returncode, done.stdout.decode()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    git_files()
    folder = tmp_path_factory.mktemp("release")
    code, printed = anyio.run(run_script, f"{OWNER}/{NAME}", "--out", str(folder))
    assert code == 0, printed
    return Release(folder, printed)


def test_everything_in_a_release_has_the_packages_version(release: Release) -> None:
    """A version on PyPI can never be used again, so a slip costs a release."""
    server = json.loads(release.read("source/packaging/server.json"))
    assert server["version"] == server["packages"][0]["version"] == __version__
    assert json.loads(release.read("bundle/manifest.json"))["version"] == __version__
    files = {file.name for file in release.folder.iterdir()}
    assert files == {
        "source",
        "bundle",
        "links.md",
        f"kiro-mcp-{__version__}.mcpb",
        f"kiro_mcp-{__version__}-py3-none-any.whl",
        f"kiro_mcp-{__version__}.tar.gz",
    }
    assert f"git tag v{__version__}" in release.printed


def test_a_release_names_the_owner_and_the_repository_wherever_they_belong(
    release: Release,
) -> None:
    """The registry's rule: `io.github.OWNER/NAME`, and the README and the image say it too."""
    server = json.loads(release.read("source/packaging/server.json"))
    manifest = json.loads(release.read("bundle/manifest.json"))
    urls = tomllib.loads(release.read("source/pyproject.toml"))["project"]["urls"]
    assert server["name"] == REGISTRY_NAME
    assert server["repository"]["url"] == manifest["repository"]["url"] == REPOSITORY
    assert urls["Repository"] == REPOSITORY
    assert all(url.startswith(REPOSITORY) for url in (*urls.values(), server["websiteUrl"]))
    links = ("homepage", "documentation", "support")
    assert all(manifest[link].startswith(REPOSITORY) for link in links)
    assert f"--label io.modelcontextprotocol.server.name={REGISTRY_NAME}" in release.printed
    assert f"--label org.opencontainers.image.source={REPOSITORY}" in release.printed


def test_the_wheel_tells_the_registry_who_owns_it(release: Release) -> None:
    """PyPI shows the wheel's README as the description, and the registry reads its line there."""
    with zipfile.ZipFile(next(release.folder.glob("*.whl"))) as wheel:
        (file,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = wheel.read(file).decode()
    assert f"\nProject-URL: Repository, {REPOSITORY}\n" in metadata
    assert f"\n# kiro-mcp\n\n<!-- mcp-name: {REGISTRY_NAME} -->\n" in metadata


def test_the_registrys_file_is_one_that_it_takes(release: Release) -> None:
    """The registry's reference for `server.json`."""
    server = json.loads(release.read("source/packaging/server.json"))
    assert not violations(SERVER_RULES, server)
    assert server["$schema"].endswith("/2025-12-11/server.schema.json")


def test_the_bundles_manifest_is_valid(release: Release) -> None:
    """The schema of MCPB manifests, 0.4."""
    schema = json.loads((ROOT / "tests/vectors/mcpb-manifest-v0.4.schema.json").read_text("utf-8"))
    Draft7Validator.check_schema(schema)
    manifest = json.loads(release.read("bundle/manifest.json"))
    assert not violations(schema, manifest)
    assert manifest["manifest_version"] == "0.4"


def test_the_packed_bundle_has_the_wheel_inside_and_installs_it(release: Release) -> None:
    """By name alone, a host would install what an index has by that name."""
    (wheel,) = release.folder.glob("*.whl")
    with zipfile.ZipFile(release.folder / f"kiro-mcp-{__version__}.mcpb") as packed:
        files = {"manifest.json", "pyproject.toml", "server.py", wheel.name}
        assert set(packed.namelist()) == files
        assert packed.read(wheel.name) == wheel.read_bytes()
        project = tomllib.loads(packed.read("pyproject.toml").decode())
    assert project["project"]["dependencies"] == [PROJECT["name"]]
    assert project["tool"]["uv"]["sources"] == {PROJECT["name"]: {"path": wheel.name}}


def test_the_page_of_links_has_all_of_them(release: Release) -> None:
    links = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", release.read("links.md"))
    assert links == [*web_links.items(), *app_links.items()]


@pytest.mark.parametrize("repository", ["kiro-mcp", "a/b/c", "-a/b", "a b/c", "https://x/y"])
async def test_a_release_needs_an_owner_and_a_repository(repository: str) -> None:
    code, printed = await run_script("--", repository)
    assert code == 2
    assert f"{repository!r} is not OWNER/REPOSITORY" in printed


async def test_a_release_overwrites_nothing(tmp_path: Path) -> None:
    """An older file beside the new ones would be published, too."""
    (tmp_path / "kiro_mcp-0.0.1.tar.gz").touch()
    code, printed = await run_script(f"{OWNER}/{NAME}", "--out", str(tmp_path))
    assert code == 2
    assert "is not empty" in printed


# --- the templates ------------------------------------------------------------------------


def test_the_bundle_names_the_tools_that_exist() -> None:
    assert [tool["name"] for tool in MANIFEST["tools"]] == [tool.name for tool in declarations()]


def test_each_variable_that_is_asked_for_is_a_setting_and_the_key_is_a_secret() -> None:
    """The same words and the same defaults as the settings."""
    settings = dict(zip(_settings(), Settings.model_fields.values(), strict=True))
    told = dict(zip(_settings(), meanings().values(), strict=True))
    for asked in SERVER["packages"][0]["environmentVariables"]:
        setting = settings[asked["name"]]
        assert asked["description"] == told[asked["name"]]
        assert asked.get("default", "") in (setting.default, "")
        assert asked.get("isSecret", False) is ("SecretStr" in str(setting.annotation))
    asked = MANIFEST["user_config"]
    for name, value in MANIFEST["server"]["mcp_config"]["env"].items():
        option = asked[value.removeprefix("${user_config.").removesuffix("}")]
        assert option.get("sensitive", False) is ("SecretStr" in str(settings[name].annotation))
        assert option["default"] in (settings[name].default, "")  # Else the ${…} itself is passed.


def _settings() -> list[str]:
    return [name for name in variables() if name.startswith("KIRO_")]


async def test_the_bundle_starts_the_server() -> None:
    """MCPB: the host installs what pyproject.toml names, and runs the entry point with uv."""
    with fail_after(RUN_SECONDS):
        entry = PACKAGING / "mcpb" / MANIFEST["server"]["entry_point"]
        async with started(command=(sys.executable, str(entry))) as server:
            assert (await server.initialize())["result"]["serverInfo"]["version"] == __version__


# --- links --------------------------------------------------------------------------------


def query(link: str) -> dict[str, str]:
    """Return the members of a link's query, of which there is one each."""
    return {name: value for name, (value,) in parse_qs(urlsplit(link).query).items()}


def of_base64(link: str) -> object:
    return json.loads(base64.b64decode(query(link)["config"], validate=True))


def of_json(link: str) -> object:
    return json.loads(query(link)["config"])


def of_goose(link: str) -> object:
    told = parse_qsl(urlsplit(link).query)
    arguments = [value for name, value in told if name == "arg"]
    return {"command": dict(told)["cmd"], "args": arguments}


def of_vscode(link: str) -> object:
    """Return what a link of VS Code's adds, in the shape of its `mcp.json`."""
    if link.startswith("https:"):
        told = query(link)
        name, server = told["name"], json.loads(told["config"])
        return {"inputs": json.loads(told["inputs"]), "servers": {name: server}}
    server = json.loads(unquote(link.partition("?")[2]))
    name, inputs = server.pop("name"), server.pop("inputs")
    return {"inputs": inputs, "servers": {name: server}}


@pytest.mark.parametrize(
    ("client", "start", "decoded", "expected"),
    [
        ("Cursor", "cursor://anysphere.cursor-deeplink/mcp/install?", of_base64, PLAIN),
        ("VS Code", "vscode:mcp/install?", of_vscode, VSCODE),
        ("VS Code Insiders", "vscode-insiders:mcp/install?", of_vscode, VSCODE),
        ("LM Studio", "lmstudio://add_mcp?", of_base64, PLAIN),
        ("Goose", "goose://extension?", of_goose, PLAIN),
    ],
)
def test_a_clients_own_link_adds_the_published_server(
    client: str, start: str, decoded: Callable[[str], object], expected: object
) -> None:
    """The makers' formats; without the key, which nobody should put into an address."""
    assert app_links[client].startswith(start)
    assert decoded(app_links[client]) == expected
    assert "ksk_" not in app_links[client]


@pytest.mark.parametrize(
    ("client", "start", "decoded", "expected"),
    [
        ("Cursor", "https://cursor.com/install-mcp?", of_base64, PLAIN),
        ("VS Code", "https://insiders.vscode.dev/redirect/mcp/install?", of_vscode, VSCODE),
        (
            "VS Code Insiders",
            "https://insiders.vscode.dev/redirect/mcp/install?",
            of_vscode,
            VSCODE,
        ),
        ("LM Studio", "https://lmstudio.ai/install-mcp?", of_base64, PLAIN),
        ("Kiro", "https://kiro.dev/launch/mcp/add?", of_json, PLAIN),
        ("Goose", "https://block.github.io/goose/extension?", of_goose, PLAIN),
    ],
)
def test_a_link_for_a_readme_adds_the_published_server(
    client: str, start: str, decoded: Callable[[str], object], expected: object
) -> None:
    """The makers' formats, by their sites: what shows a README often takes no other schemes."""
    assert web_links[client].startswith(start)
    assert decoded(web_links[client]) == expected
    assert "ksk_" not in web_links[client]


def test_every_link_gives_the_server_the_same_name() -> None:
    """So that nobody ends up with two of them."""
    links = [*app_links.values(), *web_links.values()]
    named = [link for link in links if "name=" in link]
    assert len(named) == len(links) - 2  # The two of VS Code's own scheme have it inside.
    assert {query(link)["name"] for link in named} == {"kiro"}


# --- plugins ------------------------------------------------------------------------------


def plugin(folder: str) -> dict[str, Any]:
    return json.loads((ROOT / folder / "plugin.json").read_text("utf-8"))


def test_the_marketplace_serves_the_checkout_as_a_plugin() -> None:
    """Claude Code and Codex both read this file; `tests.interop.agents` runs the real programs."""
    marketplace = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text("utf-8"))
    assert marketplace.keys() >= {"name", "owner", "plugins"}
    (entry,) = marketplace["plugins"]
    assert (ROOT / entry["source"]).resolve() == ROOT
    assert entry["source"].startswith("./")
    assert marketplace["name"] == entry["name"] == PROJECT["name"]


@pytest.mark.parametrize("folder", [".claude-plugin", ".codex-plugin"])
def test_a_plugin_has_the_name_and_the_version_of_the_package(folder: str) -> None:
    assert plugin(folder)["name"] == PROJECT["name"]
    assert plugin(folder)["version"] == __version__
    assert plugin(folder)["license"] == PROJECT["license"]


@pytest.mark.parametrize(
    ("folder", "root"), [(".claude-plugin", "${CLAUDE_PLUGIN_ROOT}"), (".codex-plugin", ".")]
)
async def test_a_plugin_starts_the_server_of_its_checkout(folder: str, root: str) -> None:
    """Claude Code fills in its root; Codex has no such variable, but starts it in a folder."""
    (server,) = plugin(folder)["mcpServers"].values()
    assert root in (*server["args"], server.get("cwd"))
    arguments = [word.replace(root, str(ROOT)) for word in server["args"]]
    with fail_after(RUN_SECONDS):
        done = await anyio.run_process(
            [server["command"], *arguments, "--version"],
            cwd=ROOT / server.get("cwd", ""),
            # This environment has all that the server needs, and other tests use it now.
            env=environment(UV_NO_SYNC="1"),
        )
    assert __version__ in done.stdout.decode()


def test_codex_passes_every_setting_and_the_way_to_the_network_on() -> None:
    """Codex hides all other variables from a server, and its users cannot add any to a plugin."""
    (server,) = plugin(".codex-plugin")["mcpServers"].values()
    proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
    certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
    others = {*proxies, *map(str.lower, proxies), *certificates}
    assert sorted(server["env_vars"]) == sorted({*variables(), *others})


# --- the unit -----------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is missing")
async def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """It warns about what it does not know, and says if the command does not exist."""
    program = tmp_path / ".local" / "bin" / "kiro-mcp"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable).with_name("kiro-mcp"))
    verify = ["systemd-analyze", "--user", "verify", "--man=no"]
    with fail_after(RUN_SECONDS):
        done = await anyio.run_process(
            [*verify, str(PACKAGING / "kiro-mcp.service")],
            check=False,
            stderr=STDOUT,
            env=environment(HOME=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path)),
        )
    assert (done.returncode, done.stdout.decode()) == (0, "")


async def test_the_unit_starts_a_server_over_http() -> None:
    """Its command is run, on a free port."""
    unit = (PACKAGING / "kiro-mcp.service").read_text("utf-8")
    (words,) = re.findall(r"^ExecStart=%h/\.local/bin/kiro-mcp (.+)$", unit, re.M)
    with fail_after(RUN_SECONDS):
        async with await anyio.open_process(
            [*COMMAND, *words.split()],
            stdin=DEVNULL,
            stderr=PIPE,
            env=environment(KIRO_MCP_PORT="0"),
        ) as process:
            try:
                assert await _port(process)
            finally:
                process.kill()


# --- the image ----------------------------------------------------------------------------


def test_the_image_runs_without_root_and_knows_no_secret() -> None:
    """Layers can be read by whoever has the image."""
    last = max(place for place, line in enumerate(DOCKERFILE) if line.startswith("FROM "))
    assert "USER kiro" in DOCKERFILE[last:]
    set_in_it = [line for line in DOCKERFILE if line.startswith(("ENV ", "ARG "))]
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD", "".join(set_in_it))
    copied = [line.split()[1:-1] for line in DOCKERFILE if line.startswith("COPY ")]
    assert copied[:2] == [["pyproject.toml", "README.md", "LICENSE"], ["kiro_mcp"]]
    assert DOCKERFILE[-1] == 'ENTRYPOINT ["kiro-mcp"]'


def test_the_image_is_built_in_two_stages_and_names_the_port_of_the_settings() -> None:
    """What builds it is not in it, and what it serves on is what `KIRO_MCP_PORT` says."""
    stages = [line for line in DOCKERFILE if line.startswith("FROM ")]
    assert len(stages) == 2
    assert stages[0].endswith(" AS build")
    assert f"EXPOSE {Settings().port}" in DOCKERFILE


def test_the_image_installs_pinned_dependencies_alone() -> None:
    """Otherwise each build takes whatever is newest, and whoever publishes that is in the image."""
    text = (ROOT / "packaging" / "requirements.txt").read_text("utf-8")
    pinned = [entry.split() for entry in text.replace("\\\n", "").splitlines()]
    assert all(any(word.startswith("--hash=sha256:") for word in words) for words in pinned)
    names = {words[0].partition("==")[0] for words in pinned}
    needed = {re.split(r"[\[<>=]", one)[0] for one in PROJECT["dependencies"]}
    assert needed <= names, "run the command that the Dockerfile names"
    assert any("--require-hashes" in line for line in DOCKERFILE)
    assert any("--no-deps /dist/" in line for line in DOCKERFILE)


async def health(process: Process, port: int) -> int:
    """Run the image's check of its health as if the process were the container's first."""
    (line,) = [line for line in DOCKERFILE if line.startswith("HEALTHCHECK ")]
    check = line.partition(" CMD ")[2].replace("/proc/1/", f"/proc/{process.pid}/")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = await anyio.run_process(
        ["sh", "-c", check], check=False, env={"PATH": path, "KIRO_MCP_PORT": str(port)}
    )
    return done.returncode


@pytest.mark.skipif(sys.platform != "linux", reason="the image is Linux's, and so is /proc")
@pytest.mark.parametrize(
    "transport", [["--transport", "http"], ["--transport=sse"]], ids=["http", "sse"]
)
async def test_a_container_is_healthy_while_its_server_answers_over_http(
    transport: list[str],
) -> None:
    """The check is run, not just read."""
    command = [*COMMAND, "serve", *transport, "--port", "0", "--no-auth"]
    with fail_after(RUN_SECONDS):
        async with await anyio.open_process(
            command, stdin=DEVNULL, stderr=PIPE, env=environment()
        ) as process:
            try:
                port = await _port(process)
                assert await health(process, port) == 0
                assert await health(process, 1) != 0
            finally:
                process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the image is Linux's, and so is /proc")
async def test_a_container_on_stdio_is_healthy_without_being_asked() -> None:
    """Nothing listens there, and an orchestrator must not take it for ill."""
    with fail_after(RUN_SECONDS):
        async with started() as server:
            await server.initialize()
            assert await health(server.process, 1) == 0


async def _port(process: Process) -> int:
    assert process.stderr
    said = ""
    while not (found := re.search(r"Serving MCP at \S+:(\d+)/", said)):
        said += (await process.stderr.receive()).decode()
    return int(found[1])
