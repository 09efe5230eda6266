"""`kiro-mcp`: with no argument an MCP server on stdio, else the command line.

What a start needs is imported where it is needed: the server needs no command line, `--help` needs
no MCP, and an idle server needs neither.
"""

import gc
import sys

TYPE_CHECKING = False  # Importing `typing` would be a third of the start of an idle server.
if TYPE_CHECKING:
    from typing import NoReturn

_FOR_A_PERSON = (
    "Serving MCP on standard input and output, for a client that starts this; Ctrl-C ends it.\n"
    "`kiro-mcp install CLIENT` adds it to one, `kiro-mcp --help` shows what else there is."
)
"""Shown where the input is a terminal, which no client uses."""


def main() -> None:
    """Run the program and end the process."""
    try:
        if len(sys.argv) == 1:
            serve_stdio()
        _load_without_collecting()
        from kiro_mcp.cli.app import run

        run()
    except KeyboardInterrupt:  # It came while modules were still being imported.
        sys.exit(130)


def serve_stdio(*, offline: bool = False) -> "NoReturn":
    """Serve MCP on stdio and end the process.

    The fast start answers what clients ask first. The SDK and the engine are loaded at the first
    message that needs them; most servers never get one.
    """
    from kiro_mcp.server.faststart import end_at_once_on_sigterm, note, serve_until_undecided

    if sys.stdin is not None and sys.stdin.isatty():
        note(_FOR_A_PERSON)
    end_at_once_on_sigterm()
    handover = serve_until_undecided()
    if handover is None:
        sys.exit(0)
    _load_without_collecting()
    from kiro_mcp.cli.serve import serve_stdio_and_exit

    serve_stdio_and_exit(handover, offline=offline)


def _load_without_collecting() -> None:
    # Looking for garbage in modules that are being loaded takes a tenth of the time. Whatever runs
    # for long calls `skip_loaded_modules_in_gc`.
    gc.disable()


if __name__ == "__main__":
    main()
