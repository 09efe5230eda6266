"""The server as a process: logging to stderr, the run itself, and a prompt end."""

import logging
import os
import sys
from collections.abc import Mapping
from typing import NoReturn

import anyio

from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.stdio import serve_stdio

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def serve_stdio_and_exit() -> NoReturn:
    """Serve on stdio and end the process without waiting for a thread that reads its input."""
    environ = dict(os.environ)
    log_to_stderr(environ)
    code = anyio.run(serve_stdio, build_server(lambda: Engine.from_environ(environ)))
    sys.stderr.flush()
    os._exit(code)


def log_to_stderr(environ: Mapping[str, str]) -> None:
    """Log to stderr at the level that is set; a wrong one is told by the first call, not here."""
    level = environ.get("KIRO_MCP_LOG_LEVEL", "").strip().upper()
    logging.basicConfig(
        stream=sys.stderr,
        level=level if level in _LEVELS else "WARNING",
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if level != "DEBUG":
        for chatty in ("httpx", "httpx2"):
            logging.getLogger(chatty).setLevel("WARNING")
