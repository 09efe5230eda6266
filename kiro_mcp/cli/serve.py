"""`kiro-mcp` and `kiro-mcp serve`: runs the server as a process that ends at once when asked to."""

import gc
import logging
import os
import shlex
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NoReturn

import anyio

from kiro_mcp.cli.output import INTERRUPTED, LogFormatter, end_process
from kiro_mcp.client.telemetry import flush_telemetry
from kiro_mcp.server.app import KiroServer, build_server
from kiro_mcp.server.faststart import Handover
from kiro_mcp.server.stdio import serve_stdio

if TYPE_CHECKING:
    from kiro_mcp.server.engine import Engine

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

_NOT_OFFLINE: Final = (
    "KIRO_MCP_ENDPOINT_URL",  # Also KIRO_MCP_ENDPOINT_URL_RUNTIME and so on.
    "KIRO_MCP_PROXY_URL",
    "KIRO_MCP_HOME",
    "KIRO_MCP_STORE",  # Also the settings of its lifetimes.
    "KIRO_MCP_KIRO_CLI",
)
"""The prefixes of the settings that `--offline` ignores."""

_SYSTEM_VARIABLES: Final = ("SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
"""What another process needs in order to run."""


def serve_stdio_and_exit(handover: Handover | None = None, *, offline: bool = False) -> NoReturn:
    """Serve on stdio and end the process, without waiting for the thread that reads stdin."""

    async def serve() -> int:
        async with service_environ(offline=offline) as environ:
            return await serve_stdio(server_for(environ), handover)

    end_process(run(serve, server_log()))


def server_for(environ: Mapping[str, str]) -> KiroServer:
    """Build a server with the settings of an environment; its first tool call reads them."""

    def engine() -> "Engine":
        # Imports HTTP, SQLite and sign-in, which the start does not need.
        from kiro_mcp.server.engine import Engine

        created = Engine.from_environ(environ)
        skip_loaded_modules_in_gc()  # The import has loaded half of all modules.
        return created

    return build_server(engine)


def skip_loaded_modules_in_gc() -> None:
    """Collect garbage, but never search what has been loaded so far: modules, which all stay.

    Searching them takes 100 ms, during which all calls wait.
    """
    gc.freeze()
    gc.enable()


def run(main: Callable[[], Awaitable[int]], log: logging.Handler) -> int:
    """Run until `main` ends and return its exit code, with the messages of all loggers in `log`.

    A wrong level in the settings counts as WARNING here; the first call reports it.
    """
    given = os.environ.get("KIRO_MCP_LOG_LEVEL", "").strip().upper()
    level = given if given in _LEVELS else "WARNING"
    log.setLevel(level)  # For captures, the package itself logs at DEBUG.
    root = logging.getLogger()
    root.addHandler(log)
    root.setLevel(level)
    if level != "DEBUG":
        for library in ("httpx", "httpx2"):
            logging.getLogger(library).setLevel("WARNING")
    skip_loaded_modules_in_gc()
    try:
        return anyio.run(main)
    except KeyboardInterrupt:  # On Windows, where event loops have no signal handlers.
        return INTERRUPTED
    finally:
        flush_telemetry()  # Usually an exit handler does this, but exit handlers do not run here.


def server_log() -> logging.Handler:
    """Return the handler that writes a server's messages to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


@asynccontextmanager
async def service_environ(*, offline: bool) -> AsyncGenerator[Mapping[str, str]]:
    """Yield the environment variables for the service, or for an emulator if offline.

    Offline, all settings of the user apply except credentials, endpoints, the proxy, the program
    and storage locations. The engine kiro-cli gets the stand-in of the vendor's program.
    """
    if not offline:
        yield dict(os.environ)
        return
    own = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("KIRO_MCP_") and not name.startswith(_NOT_OFFLINE)
    }
    if uses_program(os.environ):
        system = {name: os.environ[name] for name in _SYSTEM_VARIABLES if name in os.environ}
        stand_in = shlex.join((sys.executable, "-P", "-m", "kiro_mcp.emulator.kiro_cli"))
        if os.name == "nt":
            stand_in = f'"{sys.executable}" -P -m kiro_mcp.emulator.kiro_cli'
        yield {**system, **own, "KIRO_MCP_KIRO_CLI": stand_in}
        return
    # Imported here, because a server that is not offline starts faster without it.
    from kiro_mcp.emulator import EMULATOR_API_KEY, running

    async with running() as emulator:
        yield {**own, "KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": EMULATOR_API_KEY}


def uses_program(environ: Mapping[str, str]) -> bool:
    """Whether the settings name the engine kiro-cli."""
    return environ.get("KIRO_MCP_ENGINE", "").strip().lower() == "kiro-cli"
