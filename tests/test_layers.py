"""The house rules that a reader relies on, held by reading the source."""

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

PURE_AUTH = tuple(
    f"kiro_mcp.auth.{name}"
    for name in (
        "account",
        "credential_files",
        "device_flow",
        "encoded_tokens",
        "hosts",
        "kiro_cli_db",
        "refresh_policy",
        "renewal",
        "timestamps",
        "token_requests",
        "tokens",
    )
)

# What each layer may import of the package; longest prefix first wins. Itself is always allowed.
LAYERS: dict[str, tuple[str, ...]] = {
    "kiro_mcp.errors": ("kiro_mcp.redaction",),
    "kiro_mcp.chat": ("kiro_mcp.errors", "kiro_mcp.redaction"),
    "kiro_mcp.wire": ("kiro_mcp.errors", "kiro_mcp.chat"),
    "kiro_mcp._version": (),
    "kiro_mcp.redaction": (),
    "kiro_mcp.regions": (),
    "kiro_mcp.regular_files": (),
    **dict.fromkeys(
        PURE_AUTH,
        (
            "kiro_mcp.errors",
            "kiro_mcp.chat",
            "kiro_mcp.redaction",
            "kiro_mcp.regions",
            *PURE_AUTH,
        ),
    ),
    "kiro_mcp.client.endpoints": (
        "kiro_mcp.errors",
        "kiro_mcp.chat",
        "kiro_mcp.wire",
        "kiro_mcp.regions",
    ),
    "kiro_mcp.client.retry": ("kiro_mcp.errors", "kiro_mcp.chat"),
    "kiro_mcp.client.classify": ("kiro_mcp.errors", "kiro_mcp.chat", "kiro_mcp.wire"),
    "kiro_mcp.client.usage_limits": ("kiro_mcp.chat", "kiro_mcp.wire"),
    "kiro_mcp.client.http": (
        "kiro_mcp.errors",
        "kiro_mcp.redaction",
        "kiro_mcp.setting_values",
    ),
    "kiro_mcp.setting_values": ("kiro_mcp.regions",),
    "kiro_mcp.settings": (
        "kiro_mcp.errors",
        "kiro_mcp.chat",
        "kiro_mcp.wire",
        "kiro_mcp.redaction",
        "kiro_mcp.setting_values",
    ),
    "kiro_mcp.auth": (
        "kiro_mcp.errors",
        "kiro_mcp.chat",
        "kiro_mcp.redaction",
        "kiro_mcp.regions",
        "kiro_mcp.settings",
        "kiro_mcp.client.classify",
        "kiro_mcp.client.endpoints",
        "kiro_mcp.client.usage_limits",
        "kiro_mcp.regular_files",
    ),
    "kiro_mcp.client": (
        "kiro_mcp.errors",
        "kiro_mcp.chat",
        "kiro_mcp.wire",
        "kiro_mcp.regions",
        "kiro_mcp.settings",
        "kiro_mcp.client",
    ),
    "kiro_mcp.captures": (
        "kiro_mcp.errors",
        "kiro_mcp.chat",
        "kiro_mcp.wire",
        "kiro_mcp.redaction",
        "kiro_mcp.client.classify",
        "kiro_mcp.regular_files",
    ),
    "kiro_mcp.emulator": (
        "kiro_mcp.errors",
        "kiro_mcp.wire.eventstream",
        "kiro_mcp.captures.folder",  # Captured calls are scripts, too.
    ),
    "kiro_mcp.server": (
        "kiro_mcp.errors",
        "kiro_mcp.chat",
        "kiro_mcp.wire",
        "kiro_mcp.settings",
        "kiro_mcp.setting_values",
        "kiro_mcp.auth",
        "kiro_mcp.captures",
        "kiro_mcp.redaction",
        "kiro_mcp.client",
        "kiro_mcp.regular_files",
    ),
    "kiro_mcp.cli": ("kiro_mcp",),
    "kiro_mcp.__main__": ("kiro_mcp.cli", "kiro_mcp.server.faststart"),
    "kiro_mcp": ("kiro_mcp",),
}

PURE_CAPTURES = tuple(
    f"kiro_mcp.captures.{name}"
    for name in ("heads", "left_out", "manifest", "masking", "rendering", "replaying")
)

PURE = (
    "kiro_mcp.wire",
    "kiro_mcp.chat",
    "kiro_mcp.errors",
    "kiro_mcp.redaction",
    "kiro_mcp.regions",
    *PURE_AUTH,
    *PURE_CAPTURES,
    "kiro_mcp.client.classify",
    "kiro_mcp.client.endpoints",
    "kiro_mcp.client.retry",
    "kiro_mcp.client.usage_limits",
    *(
        f"kiro_mcp.cli.clients.{name}"
        for name in (
            "diff",
            "documents",
            "entries",
            "jsonc",
            "jsonc_edit",
            "launch",
            "text",
            "toml_edit",
        )
    ),
    "kiro_mcp.cli.doctor.checks",
)
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


def _is_in(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


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
def test_imports_run_one_way(module: str) -> None:
    """The layers: errors, models, protocol; settings; auth, transport; server; cli."""
    layer = max((place for place in LAYERS if _is_in(module, place)), key=len)
    allowed = (*LAYERS[layer], layer, "kiro_mcp._version")
    for imported in _imports(MODULES[module]):
        if _is_in(imported, "kiro_mcp"):
            assert any(_is_in(imported, place) for place in allowed), f"{module} -> {imported}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(PURE)])
def test_the_core_is_pure(module: str) -> None:
    """No await, clock, file, environment or log where bytes are read and payloads built."""
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
    if module != "kiro_mcp.server.stdio":  # It points sys.stdout at stderr, to be safe.
        attributes = [
            ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)
        ]
        assert not {"sys.stdout", "sys.__stdout__"}.intersection(attributes)


def test_one_module_knows_httpx() -> None:
    """Its successor must be one changed line away."""
    users = [module for module, path in MODULES.items() if "httpx" in _imports(path)]
    assert users == ["kiro_mcp.client.http"]


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
    late = {"httpx", "sqlite3", "truststore", "rich", "jsonschema_rs"}
    assert "mcp" in loaded
    assert not late.intersection(loaded)
    assert "kiro_mcp.server.engine" not in loaded
