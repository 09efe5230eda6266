"""What the package is published with: one name, one version, and files that their readers take."""

import json
import re
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio import fail_after
from anyio.abc import Process
from jsonschema import Draft7Validator

from kiro_mcp.__main__ import main
from kiro_mcp._version import __version__
from kiro_mcp.server.tools import declarations
from kiro_mcp.settings import Settings, variables
from tests.support.stdio import COMMAND, environment, started

ROOT = Path(__file__).parent.parent
PACKAGING = ROOT / "packaging"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SERVER = json.loads((PACKAGING / "server.json").read_text("utf-8"))
MANIFEST = json.loads((PACKAGING / "mcpb" / "manifest.json").read_text("utf-8"))
BUNDLE = tomllib.loads((PACKAGING / "mcpb" / "pyproject.toml").read_text("utf-8"))["project"]
DOCKERFILE = re.sub(
    r"^#.*\n|\\\n *", "", (PACKAGING / "Dockerfile").read_text("utf-8"), flags=re.M
).splitlines()

REPOSITORY: str = PROJECT["urls"]["Repository"]
OWNER, NAME = urlsplit(REPOSITORY).path.strip("/").split("/")

RUN_SECONDS = 30
"""How long a process may take on a busy machine; it takes about one second."""

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


def test_everything_that_is_published_has_the_packages_version() -> None:
    """A version on PyPI can never be used again, so a slip costs a release."""
    assert SERVER["version"] == SERVER["packages"][0]["version"] == __version__
    assert MANIFEST["version"] == BUNDLE["version"] == __version__
    assert BUNDLE["dependencies"] == [f"{PROJECT['name']}=={__version__}"]


def test_everything_that_is_published_has_the_packages_name() -> None:
    assert SERVER["packages"][0]["identifier"] == PROJECT["name"]
    assert MANIFEST["name"] == PROJECT["name"]
    assert PROJECT["name"] in PROJECT["scripts"]


def test_the_registrys_name_follows_from_the_repository_and_is_the_same_everywhere() -> None:
    """The registry's rule: `io.github.OWNER/NAME`, and the image says it too."""
    name = f"io.github.{OWNER}/{NAME}"
    assert SERVER["name"] == name
    assert f'LABEL io.modelcontextprotocol.server.name="{name}"' in "\n".join(DOCKERFILE)
    assert SERVER["repository"]["url"] == MANIFEST["repository"]["url"] == REPOSITORY


def test_the_command_that_is_installed_is_the_program() -> None:
    """The packaging user guide: entry points for console scripts."""
    (command,) = entry_points(group="console_scripts", name="kiro-mcp")
    assert command.load() is main


def test_every_address_of_the_project_is_in_its_repository() -> None:
    """None is left behind when it moves."""
    published = [SERVER, MANIFEST, *PROJECT["urls"].values(), *DOCKERFILE]
    told = re.findall(r"https://github\.com/[\w./#-]+", json.dumps(published))
    assert len(told) > 5
    assert all(address.startswith(REPOSITORY) for address in told)


def test_the_registrys_file_is_one_that_it_takes() -> None:
    """The registry's reference for `server.json`."""
    assert not violations(SERVER_RULES, SERVER)
    assert SERVER["$schema"].endswith("/2025-12-11/server.schema.json")


def test_the_bundles_manifest_is_valid() -> None:
    """The schema of MCPB manifests, 0.4."""
    schema = json.loads((ROOT / "tests/vectors/mcpb-manifest-v0.4.schema.json").read_text("utf-8"))
    Draft7Validator.check_schema(schema)
    assert not violations(schema, MANIFEST)
    assert MANIFEST["manifest_version"] == "0.4"


def test_the_bundle_names_the_tools_that_there_are() -> None:
    assert [tool["name"] for tool in MANIFEST["tools"]] == [tool.name for tool in declarations()]


def test_each_variable_that_is_asked_for_is_a_setting_and_the_key_is_a_secret() -> None:
    """The same words and the same defaults as the settings."""
    settings = dict(zip(_settings(), Settings.model_fields.values(), strict=True))
    for asked in SERVER["packages"][0]["environmentVariables"]:
        setting = settings[asked["name"]]
        assert asked["description"] == setting.description
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
