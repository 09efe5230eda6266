"""The commands of `kiro-mcp` and their exit codes.

Each command imports what it needs when it runs, so that `--help` and `--version` stay quick.

Exit codes: 0 ok, 2 usage, 3 sign-in, 4 network, 5 the service refused, 130 interrupted.
"""

import sys
from typing import NoReturn

import click

from kiro_mcp import __version__

_HELP = """Claude for any MCP client, through your own Kiro subscription.

With no command: an MCP server on standard input and output, which is how MCP clients start it.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kiro-mcp")
def commands() -> None:
    """Group the commands."""


@commands.command()
@click.argument("prompt")
@click.option("--offline", is_flag=True, help="Ask the built-in emulator instead of the service.")
@click.option("--model", default="", help="Model id; by default KIRO_MCP_MODEL, else auto.")
@click.option("--system", default="", help="System prompt.")
def ask(prompt: str, offline: bool, model: str, system: str) -> None:
    """Ask Claude; the answer goes to stdout, what it cost to stderr."""
    from kiro_mcp.cli.ask import run_ask  # Imports mcp, which takes half a second.

    sys.exit(run_ask(prompt, system=system, model=model, offline=offline))


@commands.command()
@click.option("--offline", is_flag=True, help="Ask the built-in emulator instead of the service.")
def models(offline: bool) -> None:
    """List the models, with context window and credit rate."""
    from kiro_mcp.cli.models import run_models  # Imports mcp, which takes half a second.

    sys.exit(run_models(offline=offline))


@commands.command()
@click.option("--port", default=8787, show_default=True, help="Port on 127.0.0.1; 0 for any.")
def emulate(port: int) -> None:
    """Serve a stand-in for the Kiro service on this machine, for tests."""
    from kiro_mcp.cli.emulate import run_emulate  # Imports the HTTP server.

    sys.exit(run_emulate(port))


def run() -> NoReturn:
    """Run the command line and end the process."""
    for stream in (sys.stdout, sys.stderr):
        # A console in another encoding must not make an answer unprintable.
        stream.reconfigure(encoding="utf-8", errors="replace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # both are TextIOWrappers in a process
    commands(prog_name="kiro-mcp")
    raise AssertionError("click ends the process")
