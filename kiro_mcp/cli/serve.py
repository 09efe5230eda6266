"""`kiro-mcp` and `kiro-mcp serve`: the server as a process, and a prompt end to it."""

import gc
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NoReturn

import anyio

from kiro_mcp.cli.output import INTERRUPTED, LogFormatter, flush_notes
from kiro_mcp.client.telemetry import flush_telemetry
from kiro_mcp.server.app import KiroServer, build_server
from kiro_mcp.server.faststart import Handover
from kiro_mcp.server.stdio import serve_stdio

if TYPE_CHECKING:
    from kiro_mcp.server.engine import Engine

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_NOT_OFFLINE: Final = (
    "KIRO_MCP_ENDPOINT_URL",  # And that of each host.
    "KIRO_MCP_PROXY_URL",
    "KIRO_MCP_HOME",
    "KIRO_MCP_STORE",  # And how long things are kept.
)


def serve_stdio_and_exit(handover: Handover | None = None, *, offline: bool = False) -> NoReturn:
    """Serve on stdio and end the process without waiting for a thread that reads its input."""

    async def serve() -> int:
        async with service_environ(offline=offline) as environ:
            return await serve_stdio(server_for(environ), handover)

    run_and_exit(serve)


def server_for(environ: Mapping[str, str]) -> KiroServer:
    """Build a server with the settings of an environment, which its first tool call reads."""

    def engine() -> "Engine":
        from kiro_mcp.server.engine import Engine  # HTTP, SQLite, sign-in: no start needs them.

        made = Engine.from_environ(environ)
        collect_from_here_on()  # It loads half of all modules.
        return made

    return build_server(engine)


def collect_from_here_on() -> None:
    """Look for garbage from now on, but not in the modules loaded so far, which all stay.

    To search through those takes 100 ms, in which no call goes on.
    """
    gc.freeze()
    gc.enable()


def run_and_exit(serve: Callable[[], Awaitable[int]]) -> NoReturn:
    """Serve, then end the process."""
    log_to(logging.StreamHandler(), os.environ, _FORMAT)
    collect_from_here_on()
    try:
        code = anyio.run(serve)
    except KeyboardInterrupt:  # Where event loops have no signal handlers, which is Windows.
        code = INTERRUPTED
    exit_at_once(code)


def exit_at_once(code: int) -> NoReturn:
    """End the process: no thread that still waits, and no task, may hold it up."""
    flush_telemetry()  # Exit handlers, which would do so, are not run.
    flush_notes()
    os._exit(code)


@asynccontextmanager
async def service_environ(*, offline: bool) -> AsyncGenerator[Mapping[str, str]]:
    """Yield the variables that say which service to use: the process's, or an emulator's."""
    if not offline:
        yield dict(os.environ)
        return
    # Imported here to keep the start of a server light, which does without it.
    from kiro_mcp.emulator import EMULATOR_API_KEY, running

    async with running() as emulator:
        yield {**offline_environ(os.environ, emulator.url), "KIRO_API_KEY": EMULATOR_API_KEY}


def offline_environ(environ: Mapping[str, str], emulator_url: str) -> dict[str, str]:
    """Return the variables that count offline: the user's settings, with an emulator's address.

    Left out is what signs in, leads to another host, or says where things are kept.
    """
    own = {
        name: value
        for name, value in environ.items()
        if name.startswith("KIRO_MCP_") and not name.startswith(_NOT_OFFLINE)
    }
    return {**own, "KIRO_MCP_ENDPOINT_URL": emulator_url}


def log_to(handler: logging.Handler, environ: Mapping[str, str], layout: str = "") -> None:
    """Log to this at the level that is set; a wrong one is told by the first call, not here."""
    handler.setFormatter(LogFormatter(layout or None))
    given = environ.get("KIRO_MCP_LOG_LEVEL", "").strip().upper()
    level = given if given in _LEVELS else "WARNING"
    handler.setLevel(level)  # Captures have the package log more than that.
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    if level != "DEBUG":
        for chatty in ("httpx", "httpx2"):
            logging.getLogger(chatty).setLevel("WARNING")
