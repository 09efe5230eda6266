"""`kiro-mcp ask`: one question, its answer on stdout, what it cost on stderr."""

import sys
from typing import Any

from rich.console import Console

from kiro_mcp.cli.session import connected, failed, run_command, text_of


def run_ask(prompt: str, *, system: str, model: str, offline: bool) -> int:
    """Ask and return the exit code."""
    arguments = {"prompt": prompt, "system": system, "model": model}

    async def command() -> int:
        async with connected(offline=offline) as client:
            # On a terminal a spinner; in a pipe nothing.
            with Console(stderr=True).status("Claude is answering …"):
                result = await client.call_tool("ask_claude", arguments)
        if result.is_error:
            return failed(result)
        print(text_of(result))
        _print_facts(result.structured_content)
        return 0

    return run_command(command)


def _print_facts(answer: dict[str, Any]) -> None:
    for warning in answer["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(" · ".join(_facts(answer)), file=sys.stderr)


def _facts(answer: dict[str, Any]) -> list[str]:
    usage = answer["usage"]
    about = "about " if usage["estimated"] else ""
    facts = [
        answer["model"],
        f"{about}{usage['input_tokens']} tokens in, {usage['output_tokens']} out",
    ]
    if usage["credits"] is not None:
        facts.append(f"{usage['credits']:g} credits")
    if usage["context_percent"] is not None:
        facts.append(f"{usage['context_percent']:.1f} % of the context window")
    return facts
