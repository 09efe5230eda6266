"""The commands of `kiro-mcp` and their exit codes.

Each command imports what it needs when it runs, because `mcp` alone takes half a second. So
`--help` and `--version` stay quick.

Exit codes: 0 ok, 1 the output cannot be written (for `replay`: a difference), 2 usage, 3 sign-in,
4 network, 5 the service refused, 130 interrupted, 141 the reader of the output stopped early.
"""

import os
import re
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import click

from kiro_mcp.__main__ import serve_stdio
from kiro_mcp._version import __version__
from kiro_mcp.cli.env_file import EnvFileError, add_env_file
from kiro_mcp.cli.output import (
    INTERRUPTED,
    OutputError,
    end_process,
    note,
    output_failed,
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read settings from this file, too. A .env file is never read by itself.",
)
@click.version_option(__version__, prog_name="kiro-mcp")
@click.pass_context
def commands(context: click.Context, env_file: Path | None) -> None:
    """Claude for any MCP client, through your own Kiro subscription.

    With no command: an MCP server on standard input and output, which is how MCP clients start it.
    """
    try:
        left_out = add_env_file(env_file, os.environ) if env_file else ()
    except EnvFileError as error:
        raise click.BadParameter(f"{env_file}: {error}", param_hint="--env-file") from error
    if left_out:
        note(f"{env_file}: ignored, not settings of kiro-mcp: {', '.join(left_out)}.")
    if context.invoked_subcommand is None:
        serve_stdio()


@commands.command()
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http", "sse"]),
    default="stdio",
    show_default=True,
    help="http is Streamable HTTP at /mcp; sse is the older transport, for old clients.",
)
@click.option("--host", help="HTTP only: the address; default KIRO_MCP_HOST, else 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="HTTP only: default KIRO_MCP_PORT, else 8000; 0 takes any free port.",
)
@click.option(
    "--api", is_flag=True, help="HTTP only: serve OpenAI's and Anthropic's APIs at /v1, too."
)
@click.option("--no-auth", is_flag=True, help="HTTP on this machine only: require no token.")
@click.option("--offline", is_flag=True, help="Use the built-in emulator instead of the service.")
def serve(
    transport: Literal["stdio", "http", "sse"],
    host: str | None,
    port: int | None,
    api: bool,
    no_auth: bool,
    offline: bool,
) -> None:
    """Serve MCP on standard input and output, or over HTTP."""
    if transport == "stdio":
        if host is not None or port is not None or api or no_auth:
            options = "--host, --port, --api and --no-auth"
            raise click.UsageError(f"{options} need --transport http or sse.")
        serve_stdio(offline=offline)
    from kiro_mcp.cli.serve_http import serve_http_and_exit

    serve_http_and_exit(transport, host=host, port=port, api=api, no_auth=no_auth, offline=offline)


_json: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_offline: Final = click.option(
    "--offline", is_flag=True, help="Ask the built-in emulator instead of the service."
)

_CONTINUE: Final = ("-c", "--continue")
_CONVERSATION_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class _AskCommand(click.Command):
    """A command whose `-c` takes the next word only if it is the id of a conversation."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `-c ID` as `--continue=ID`, and `-c` before anything else as `--continue=`."""
        words, explicit = deque(args), list[str]()
        while words and words[0] != "--":
            word = words.popleft()
            if word in _CONTINUE:
                is_id = bool(words) and _CONVERSATION_ID.fullmatch(words[0])
                word = f"--continue={words.popleft() if is_id else ''}"
            explicit.append(word)
        return super().parse_args(ctx, [*explicit, *words])


@commands.command(cls=_AskCommand)
@click.argument("words", nargs=-1, metavar="[PROMPT]")
@click.option("--model", default="", help="Model id; default KIRO_MCP_MODEL, else auto.")
@click.option(
    "--effort",
    default="",
    metavar="LEVEL",
    help="How hard to think: off low medium high xhigh max, or what `kiro-mcp models` shows.",
)
@click.option("--system", default="", help="System prompt.")
@click.option("-f", "--file", "files", multiple=True, metavar="PATH", help="Attach a text file.")
@click.option("-i", "--image", "images", multiple=True, metavar="PATH", help="Attach an image.")
@click.option(
    *_CONTINUE,
    "continued",
    metavar="[ID]",
    help="Continue the last conversation of this command, or the one with this id.",
)
@click.option(
    "--schema",
    default="",
    metavar="FILE_OR_JSON",
    help="Answer with JSON that matches this JSON Schema.",
)
@click.option(
    "--max-tokens", type=click.IntRange(min=0), metavar="N", default=0, help="Limit of the answer."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
@click.option("--dry-run", is_flag=True, help="Send nothing; show what would be sent.")
@_offline
def ask(**given: Any) -> int:
    """Ask Claude: the answer goes to stdout, its cost to stderr.

    Piped input is added to the prompt. The prompt - means the piped input alone.
    """
    from kiro_mcp.cli.ask import Question, run_ask

    return run_ask(Question(**given))


@commands.command()
@_json
@_offline
def models(**given: Any) -> int:
    """List the models with their windows, credit rates and efforts."""
    from kiro_mcp.cli.account import run_models

    return run_models(**given)


@commands.command()
@click.option(
    "--method",
    type=click.Choice(["builder_id", "idc", "google", "github"]),
    default="builder_id",
    show_default=True,
    help="How to sign in; idc is an organisation's IAM Identity Center.",
)
@click.option("--start-url", default="", help="For idc: the start URL of the organisation.")
@click.option("--region", default="", help="For idc: the region of its directory.")
@click.option("--no-browser", is_flag=True, help="Print the URL, but open no browser.")
@click.option("--offline", is_flag=True, help="Sign in to the built-in emulator; save nothing.")
def login(no_browser: bool, **given: Any) -> int:
    """Sign in with a code that you confirm in a browser on any device."""
    from kiro_mcp.cli.account import run_login

    return run_login(**given, opens_browser=not no_browser)


@commands.command()
def logout() -> int:
    """Delete the login of kiro-mcp. Logins of other programs stay as they are."""
    from kiro_mcp.cli.account import run_logout

    return run_logout()


@commands.command()
@_json
@_offline
def status(**given: Any) -> int:
    """Show who is signed in, why, and how many credits are left."""
    from kiro_mcp.cli.account import run_status

    return run_status(**given)


@commands.command()
@click.argument(
    "client",
    metavar="CLIENT",
    type=click.Choice(
        [
            *("claude-desktop", "claude-code", "vscode", "cursor", "zed", "codex", "kiro"),
            *("windsurf", "gemini", "qwen", "opencode", "cline", "goose", "lm-studio"),
        ]
    ),
)
@click.option("--name", default="kiro", show_default=True, help="What the client calls the server.")
@click.option(
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Variable for the server; without =VALUE, the value it has here. Repeatable.",
)
@click.option(
    "--project", "in_project", is_flag=True, help="Edit the file of the project in this folder."
)
@click.option("--file", default="", metavar="PATH", help="Edit this file instead of the usual one.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Show the change, but write nothing.")
@click.option("--uninstall", "is_removal", is_flag=True, help="Remove the server again.")
def install(client: str, **given: Any) -> int:
    """Add this server to the configuration of an MCP client.

    CLIENT is claude-desktop, claude-code, vscode, cursor, zed, codex, kiro, windsurf, gemini,
    qwen, opencode, cline, goose or lm-studio.
    """
    from kiro_mcp.cli.install import Options, run_install

    return run_install(client, Options(**given))


@commands.command()
@_json
@_offline
def doctor(**given: Any) -> int:
    """Find what keeps the server from working, and what to do."""
    from kiro_mcp.cli.doctor import run_doctor

    return run_doctor(**given)


@commands.command()
@click.option("--yes", is_flag=True, help="Do not ask before credits are spent.")
@click.option("--dry-run", is_flag=True, help="Send nothing; show the questions and their cost.")
@click.option("--out", default="", metavar="FILE", help="Write a report that can be shared (JSON).")
@_offline
def verify(**given: Any) -> int:
    """Ask the service what docs/protocol.md is unsure of.

    Costs at most 0.5 credits. The report has no secrets, accounts or prompts of yours.
    """
    from kiro_mcp.cli.verify import run_verify

    return run_verify(**given)


@commands.command()
@click.argument("folder", metavar="DIR")
@_json
@click.option("--diff", "shows_diff", is_flag=True, help="Print the differences only.")
def replay(**given: Any) -> int:
    """Parse the answers of a captured call again. Sends nothing.

    DIR is the folder of one call; the server writes it if KIRO_MCP_DEBUG_MODE is set. The exit
    code is 1 if the result differs from the recorded one.
    """
    from kiro_mcp.cli.developer import run_replay

    return run_replay(**given)


@commands.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8787,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes any free port.",
)
@click.option(
    "--script",
    "scripts",
    metavar="FILE",
    multiple=True,
    help="Your own answers: a JSON file, or the folder of a captured call. Repeatable.",
)
@click.option(
    "--record",
    metavar="DIR",
    default="",
    help="Keep each request in this folder, without secrets, and take any bearer token.",
)
@click.option("--acp", "is_program", is_flag=True, help="Be the vendor's program kiro-cli instead.")
@click.option(
    "--dialect",
    type=click.Choice(["v2", "v3"]),
    default="v3",
    show_default=True,
    help="With --acp: how old the program is.",
)
@click.option(
    "--scene",
    "scenes",
    metavar="NAME",
    multiple=True,
    help="With --acp: a fault, or the script that answers every prompt. Repeatable.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]")
def emulate(
    is_program: bool, dialect: str, scenes: tuple[str, ...], words: tuple[str, ...], **given: Any
) -> int:
    """Run an emulator of the Kiro service on this machine, for tests.

    With --acp and ARGS, such as `acp` or `whoami`, it does what kiro-cli does with them. Without
    ARGS it prints the settings with which kiro-mcp uses it.
    """
    if not is_program:
        if words and words[0].startswith("-"):
            from difflib import get_close_matches

            context = click.get_current_context()
            known = [name for one in context.command.params for name in one.opts]
            possible = get_close_matches(words[0], known)
            raise click.NoSuchOption(words[0], possibilities=possible, ctx=context)
        if words or scenes:
            raise click.UsageError(f"Only with --acp: {' '.join(words or scenes)}")
        from kiro_mcp.cli.developer import run_emulate

        return run_emulate(**given)
    # Speaks on standard input and output.
    from kiro_mcp.emulator.kiro_cli import UsageError, main, read_options

    options = ["--dialect", dialect, *(word for one in scenes for word in ("--scene", one))]
    if words:
        return main([*options, *words])
    try:
        read_options(options)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    from kiro_mcp.cli.terminal import say

    say("KIRO_MCP_ENGINE=kiro-cli")
    say(f"KIRO_MCP_KIRO_CLI=kiro-mcp emulate --acp {' '.join(options)}")
    return 0


def run() -> NoReturn:
    """Run the command line and end the process."""
    # A stream that the caller has closed is opened on /dev/null, so that no socket gets its number.
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        # A console in another encoding must not make an answer unprintable.
        stream.reconfigure(encoding="utf-8", errors="replace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # both are TextIOWrappers in a process
    code = _exit_code()
    try:
        sys.stdout.flush()
    except OSError as error:
        code = output_failed(error)
    end_process(code)


def _exit_code() -> int:
    try:
        return commands.main(prog_name="kiro-mcp", standalone_mode=False) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            error = _with_the_right_command(error)
        with suppress(OSError):  # Standard error may be closed.
            error.show()
        return error.exit_code
    except OutputError as error:
        return output_failed(error.cause)
    except click.Abort:  # Ctrl-C before the command's event loop ran.
        return INTERRUPTED


def _with_the_right_command(error: click.NoSuchOption) -> click.UsageError:
    """Return the error with the command that has the option; unchanged if none has it."""
    name, context = error.option_name, error.ctx
    every = {"": commands, **commands.commands}
    owners = [owner for owner, one in every.items() if any(name in p.opts for p in one.params)]
    if context is None or not owners:
        return error
    if owners == [""]:
        where = f"comes before the command: kiro-mcp {name} … {context.info_name}."
    elif context.command is commands:
        where = f"comes after the command: kiro-mcp {owners[0]} {name} …"
    else:
        where = f"is an option of `{'`, `'.join(owners)}`."
    return click.UsageError(f"No such option '{name}' here. It {where}", context)
