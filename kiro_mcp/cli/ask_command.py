"""The options of `kiro-mcp ask`: what a person may type, and how `--continue` reads it."""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

_CONTINUE: Final = ("-c", "--continue")
_CONVERSATION_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class _AskCommand(click.Command):
    """A command whose `-c` takes the next word only if that is the id of a conversation."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_with_explicit_ids(args)))


def _with_explicit_ids(args: Sequence[str]) -> Iterator[str]:
    """Write `-c ID` as `--continue=ID`, and `-c` before anything else as `--continue=`."""
    words = iter(enumerate(args))
    for index, word in words:
        if word == "--":
            yield from args[index:]
            return
        if word not in _CONTINUE:
            yield word
            continue
        follows = args[index + 1 : index + 2]
        is_id = bool(follows and _CONVERSATION_ID.fullmatch(follows[0]))
        if is_id:
            next(words)
        yield f"--continue={follows[0] if is_id else ''}"


@click.command(cls=_AskCommand)
@click.argument("words", nargs=-1, metavar="[PROMPT]")
@click.option("--model", default="", help="Model id; by default KIRO_MCP_MODEL, else auto.")
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
    help="Go on with the last conversation of this command, or with the one of this id.",
)
@click.option(
    "--schema",
    default="",
    metavar="FILE_OR_JSON",
    help="JSON Schema: the answer is JSON that keeps it.",
)
@click.option(
    "--max-tokens", type=click.IntRange(min=0), metavar="N", default=0, help="Tokens of the answer."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
@click.option("--dry-run", is_flag=True, help="Send nothing; say what would be sent.")
@click.option("--offline", is_flag=True, help="Ask the built-in emulator instead of the service.")
def ask(**given: Any) -> None:
    """Ask Claude: the answer goes to stdout, what it cost to stderr.

    What is piped in is added to the prompt; - stands for it alone.
    """
    # Imports mcp, which takes half a second.
    from kiro_mcp.cli.ask import run_ask
    from kiro_mcp.cli.question import Question

    sys.exit(run_ask(Question(**given)))
