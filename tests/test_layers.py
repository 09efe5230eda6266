"""The rules of the package's structure, checked by reading its source."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kiro_mcp"

MODULES = {
    ".".join(("kiro_mcp", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

LAYERS = (
    "_version errors redaction regions files",  # what every layer needs
    "chat",  # requests and replies as values
    "wire",  # values to bytes, bytes to values
    "settings",
    "client",  # the direct engine: sends requests and reads answers
    "auth",  # credentials, sign-in, refresh
    "captures",  # calls written to files, and read again
    "web_server",  # an HTTP port, for the emulator and the server
    "acp",  # the second engine: the vendor's own program
    "emulator",  # the stand-in for the service
    "server",  # the MCP server
    "api",  # the vendors' APIs, on the same HTTP server
    "cli __main__",  # the command line
    "__init__",  # the public names, imported at their first use
)
"""From the bottom to the top: a module imports only from its own line and the lines above it."""

NOT_IMPORTED = {
    "emulator": (
        "chat",
        "settings",
        "client",
        "auth",
        "acp",
    ),  # it must not share faults
    "server": ("emulator",),
}
"""What a layer does without, although it is below it."""

PURE = [
    "api.chat_completions",
    "api.errors",
    "api.messages",
    "api.reading",
    "api.responses",
    "api.writing",
    "errors",
    "redaction",
    "regions",
    "chat",
    "wire",
    "auth.credentials",
    "auth.oidc",
    "auth.hosts",
    "acp.transcript",
    "captures.redacting",
    "captures.replaying",
    "client.classify",
    "client.endpoints",
    "client.retry",
    "cli.clients.edits",
]
"""What reads bytes, builds requests and decides: no await, clock, file, environment or log."""

IMPURE_IMPORTS = {
    "anyio",
    "asyncio",
    "httpx",
    "logging",
    "mcp",
    "os",
    "pathlib",
    "random",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "time",
}


def _is_in(module: str, parent: str) -> bool:
    return module == parent or module.startswith(f"{parent}.")


def _layer(module: str) -> str:
    """Return the name of the layer that a module is in."""
    return module.removeprefix("kiro_mcp").lstrip(".").partition(".")[0] or "__init__"


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(
                f"{node.module}.{alias.name}"
                if f"{node.module}.{alias.name}" in MODULES
                else node.module
                for alias in node.names
            )
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_layer_and_those_below(module: str) -> None:
    order = {name: number for number, line in enumerate(LAYERS) for name in line.split()}
    layer = _layer(module)
    for imported in _imports(MODULES[module]):
        if _is_in(imported, "kiro_mcp"):
            below = _layer(imported)
            assert order[below] <= order[layer], f"{module} imports {imported}"
            assert below not in NOT_IMPORTED.get(layer, ()), f"{module} imports {imported}"


@pytest.mark.parametrize("module", [m for m in MODULES if _is_in(m, "kiro_mcp.emulator")])
def test_the_emulator_shares_only_frames_with_the_wire(module: str) -> None:
    """It checks the requests that are built there, so it must not share their faults."""
    shared = {one for one in _imports(MODULES[module]) if _is_in(one, "kiro_mcp.wire")}
    assert shared <= {"kiro_mcp.wire.eventstream"}


def test_each_pure_module_is_there() -> None:
    assert [name for name in PURE if f"kiro_mcp.{name}" not in MODULES] == []


@pytest.mark.parametrize(
    "module", [name for name in MODULES if any(_is_in(name, f"kiro_mcp.{pure}") for pure in PURE)]
)
def test_what_reads_builds_and_decides_is_pure(module: str) -> None:
    source = MODULES[module].read_text("utf-8")
    tops = {name.partition(".")[0] for name in _imports(MODULES[module])}
    assert not tops & IMPURE_IMPORTS
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("module", [m for m in MODULES if not _is_in(m, "kiro_mcp.cli")])
def test_only_the_command_line_prints(module: str) -> None:
    """On stdio, stdout is the wire: one stray line breaks the client's connection."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    assert "print" not in names
    # The one points sys.stdout at stderr, to be safe; the other is a program of its own.
    if module not in ("kiro_mcp.server.stdio", "kiro_mcp.emulator.kiro_cli"):
        attributes = [
            ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)
        ]
        assert not {"sys.stdout", "sys.__stdout__"}.intersection(attributes)


def test_one_module_of_the_client_knows_httpx() -> None:
    """Its successor must be one changed line away. The emulator shares no code with the client."""
    users = [module for module, path in MODULES.items() if "httpx" in _imports(path)]
    assert users == ["kiro_mcp.client.http", "kiro_mcp.emulator.acp_server"]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text("utf-8")))


def test_the_start_of_a_server_loads_nothing_that_only_calls_need() -> None:
    """Clients start servers that may never be called, and wait for them."""
    code = "import sys, kiro_mcp.cli.serve; print(*sys.modules)"
    # Coverage, where it is measured, starts with every process and loads sqlite3 itself.
    unmeasured = {name: it for name, it in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60, env=unmeasured)
    loaded = done.stdout.decode().split()
    late = {"httpx", "sqlite3", "truststore", "rich", "jsonschema_rs", "tomlkit", "ruamel"}
    assert "mcp" in loaded
    assert not late.intersection(loaded)
    assert "kiro_mcp.server.engine" not in loaded
