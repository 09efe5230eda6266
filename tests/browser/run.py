"""Use the server as a person does, in the MCP Inspector's web page: `python -m tests.browser.run`.

Starts `kiro-mcp serve --transport http --offline`, the Inspector and a headless Chromium, and
clicks: connects, sees the three tools, calls each and reads what comes. One line an era of the
protocol; exits with 0 if all is well. Where Chromium or npm is missing it is skipped, which is
said; `tests.support.optional` says how to forbid that.
"""

import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import anyio
from anyio import fail_after

from tests.browser.chromium import POLL_SECONDS, START_SECONDS, Browser, Page, chromium
from tests.support.npm import program
from tests.support.optional import exit_code
from tests.support.stdio import COMMAND, environment

VERSION = "2.12.0"
ERAS = ("legacy", "modern")
STEP_SECONDS = 60
TOKEN = "a-token-that-only-this-run-knows"

TOOLS = ("ask_claude", "list_models", "login")
EXPECTED = {
    "ask_claude": "You said: Say hello",
    "list_models": "claude-sonnet-4.5",
    "login": "signed_in",
}
"""What the answer of each tool has to show."""


async def works() -> bool:
    """Go through it in each era; print a line for each."""
    inspector = await program("@modelcontextprotocol/inspector", VERSION)
    async with _serving() as url, chromium() as browser:
        with fail_after(START_SECONDS):
            product = (await browser.send("Browser.getVersion"))["product"]
        for era in ERAS:
            started = time.monotonic()
            async with _inspecting(inspector, url, era) as address:
                await _go_through(browser, address)
            seconds = time.monotonic() - started
            print(
                f"browser: Inspector {VERSION} in {product}, {era}: {len(TOOLS)} tools listed and"
                f" called, {seconds:.1f} s",
                flush=True,
            )
    return True


async def _go_through(browser: Browser, address: str) -> None:
    with fail_after(STEP_SECONDS):
        page = await browser.open(address)
    try:
        with fail_after(STEP_SECONDS):
            await page.click("document.querySelector('[role=switch][aria-label^=Connect]')")
            await page.click(_labelled("label", "Tools"))
            await page.until("document.body.innerText.includes('Tools (3)')")
        for tool in TOOLS:
            with fail_after(STEP_SECONDS):
                await _call(page, tool)
    except TimeoutError:
        print(f"The page shows:\n{await page.text()}")
        raise


async def _call(page: Page, tool: str) -> None:
    await page.click(
        f"[...document.querySelectorAll('button')].find(one => one.innerText.endsWith('{tool}'))"
    )
    if tool == "ask_claude":
        await page.type(f"{_labelled('label', 'prompt')}?.control", "Say hello")
    await page.click(_labelled("button", "Execute Tool"))
    # Not just anywhere: progress and the log of messages show answers, too.
    shown = "[...document.querySelectorAll('div')].map(one => one.innerText)"
    await page.until(
        f"{shown}.some(text => text.startsWith('Results') &&"
        f" text.includes({json.dumps(EXPECTED[tool])}))"
    )


def _labelled(tag: str, words: str) -> str:
    """Return the expression of the element that says just these words."""
    return (
        f"[...document.querySelectorAll('{tag}')]"
        f".find(one => one.innerText.trim() === {json.dumps(words)})"
    )


@asynccontextmanager
async def _serving() -> AsyncGenerator[str]:
    arguments = ("serve", "--transport", "http", "--port", "0", "--offline")
    environ = environment(KIRO_MCP_HTTP_TOKEN=TOKEN)
    async with _running([*COMMAND, *arguments], environ, r"Serving MCP at (\S+) ") as url:
        yield url


@asynccontextmanager
async def _inspecting(inspector: Sequence[str], url: str, era: str) -> AsyncGenerator[str]:
    """Run the Inspector's own server; yield the address of its page, with the token it wants."""
    arguments = ["--web", "--transport", "http", "--server-url", url, "--protocol-era", era]
    header = ["--header", f"Authorization: Bearer {TOKEN}"]
    with tempfile.TemporaryDirectory() as home:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "CLIENT_PORT": str(_free_port()),
            "MCP_SANDBOX_PORT": str(_free_port()),
            "MCP_AUTO_OPEN_ENABLED": "false",
        }
        said = r"(http://\S+MCP_INSPECTOR_API_TOKEN=\w+)"
        async with _running([*inspector, *arguments, *header], environ, said) as address:
            yield address


@asynccontextmanager
async def _running(
    command: Sequence[str], environ: Mapping[str, str], said: str
) -> AsyncGenerator[str]:
    """Run a program; yield what it says of itself, and end it in the end."""
    with tempfile.NamedTemporaryFile() as output:
        async with await anyio.open_process(
            command, stdin=DEVNULL, stdout=output.fileno(), stderr=STDOUT, env=environ
        ) as process:
            try:
                yield await _said(Path(output.name), said)
            finally:
                process.kill()


async def _said(output: Path, pattern: str) -> str:
    try:
        with fail_after(START_SECONDS):
            while True:
                if found := re.search(pattern, output.read_text("utf-8")):
                    return found[1]
                await anyio.sleep(POLL_SECONDS)
    except TimeoutError:
        print(f"It says only:\n{output.read_text('utf-8')}")
        raise


def _free_port() -> int:
    # The Inspector does not accept port 0: it derives its pages' origin from the number.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(exit_code("browser", works))
