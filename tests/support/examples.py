"""The programs in docs/examples: what they need, and what they print without an account."""

import os
import sys
import tomllib
from pathlib import Path

from tests.support.stdio import environment

FOLDER = Path(__file__).parent.parent.parent / "docs" / "examples"
FILES = sorted(FOLDER.glob("*.py"))

HELLO = "This is a canned answer of the emulator. You said: Say hello"
TOKEN = "a token that only tests know"

PRINTED = {
    "mcp_client": ["Your tools said: sunny, 18 °C", "running: This", "You said: /emulate slow 3"],
    "openai_api": [HELLO, f"{HELLO} again", "404 Error code: 404 - model_unavailable"],
    "anthropic_api": [HELLO, "404 Error code: 404", "model_unavailable"],
}
"""What an example must print, by its name; the others print the answer to `Say hello`."""

OVER_HTTP = ("anthropic_api", "llama_index_agent", "openai_api")
"""The examples that call a server which the reader starts."""


def dependencies(example: Path) -> list[str]:
    """Return the packages that an example names in its head; none if it needs only a clone."""
    start, *rest = example.read_text("utf-8").splitlines()
    if start != "# /// script":
        return []
    head = [line.removeprefix("# ") for line in rest[: rest.index("# ///")]]
    return tomllib.loads("\n".join(head))["dependencies"]


def with_kiro_mcp(**variables: str) -> dict[str, str]:
    """Return the environment of a user who has installed kiro-mcp."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return environment(PATH=path, KIRO_MCP_HTTP_TOKEN=TOKEN, **variables)


def missing(example: Path, printed: str) -> list[str]:
    """Return what an example should have printed, and did not."""
    return [text for text in PRINTED.get(example.stem, [HELLO]) if text not in printed]
