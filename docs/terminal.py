"""Draw `terminal.svg`: what the commands below really print, against the built-in emulator.

    uv run python docs/terminal.py

A test runs the commands again and compares, so the picture stays true.
"""

import html
import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).with_name("terminal.svg")
COMMANDS = (
    'kiro-mcp ask --offline "Say hello"',
    "kiro-mcp models --offline | head -6",
)
COLUMNS = 108

FORMAT = """\
<svg viewBox="0 0 {terminal_width} {terminal_height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>{lines}</defs>
<rect fill="#292929" width="100%" height="100%" rx="8"/>
<g transform="translate(14, 14)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""Rich's own format loads fonts from the network and draws a window."""


def run_commands() -> list[tuple[str, str]]:
    """Return each command with what it prints."""
    folder = Path(sys.executable).parent
    return [
        (
            command,
            subprocess.run(  # noqa: S602  # the commands above
                command.replace("kiro-mcp", f"'{folder / 'kiro-mcp'}'", 1),
                shell=True,
                check=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ).stdout.rstrip("\n"),
        )
        for command in COMMANDS
    ]


def words(picture: str) -> list[str]:
    """Return the words of a picture."""
    texts = re.findall("<text[^>]*>([^<]*)</text>", picture)
    return " ".join(html.unescape(text).strip() for text in texts).split()


def draw(session: list[tuple[str, str]]) -> str:
    """Return the picture of commands and what they printed."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for command, printed in session:
        console.print(Text.assemble(("$ ", "green"), (command, "bold")))
        console.print(Text(f"{printed}\n", no_wrap=True, overflow="ellipsis"))
    return console.export_svg(code_format=FORMAT, unique_id="terminal")


if __name__ == "__main__":
    PICTURE.write_text(draw(run_commands()), "utf-8")
