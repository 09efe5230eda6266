"""The commands with the engine kiro-cli, on the stand-in of the vendor's program."""

import re
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import httpx
from anyio import fail_after
from anyio.streams.text import TextReceiveStream

from tests.support.api import CHAT, MESSAGES, question
from tests.support.forked import run_forked
from tests.support.stdio import COMMAND, PROMPTLY_SECONDS, environment, started

RUN_SECONDS = 60
"""How long a command may take on a busy machine."""

ENGINE = {"KIRO_MCP_ENGINE": "kiro-cli"}


async def run(*arguments: str, **variables: str) -> CompletedProcess[bytes]:
    with fail_after(RUN_SECONDS):
        return await run_forked(*arguments, env=environment(**ENGINE, **variables))


async def test_offline_a_question_is_answered_by_the_stand_in_in_any_folder(tmp_path: Path) -> None:
    """Neither a program that the user named nor a module of the folder is run instead."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')")
    with fail_after(RUN_SECONDS):
        done = await run_forked(
            *("ask", "--offline", "Say hello"),
            env=environment(**ENGINE, KIRO_MCP_KIRO_CLI="/no/such/program"),
            cwd=tmp_path,
        )
    assert "You said: Say hello" in done.stdout.decode()
    assert "credits" in done.stderr.decode()
    assert done.returncode == 0


async def test_offline_the_models_are_those_of_the_stand_in() -> None:
    done = await run("models", "--offline")
    assert b"claude-opus" in done.stdout
    assert b"live list" in done.stderr


async def test_offline_over_stdio_the_stand_in_answers_and_ends_with_the_server() -> None:
    command = (*COMMAND, "serve", "--offline")
    with fail_after(RUN_SECONDS):
        async with started(environment(**ENGINE), command) as server:
            await server.initialize()
            called = await server.call("ask_claude", prompt="Say hello")
            assert "Say hello" in called["structuredContent"]["text"]
            await server.stdin.aclose()
            with fail_after(PROMPTLY_SECONDS):
                assert await server.process.wait() == 0


async def test_offline_over_http_both_apis_answer_by_the_stand_in() -> None:
    options = ["--transport", "http", "--api", "--offline", "--no-auth", "--port", "0"]
    with fail_after(RUN_SECONDS):
        async with await anyio.open_process(
            [*COMMAND, "serve", *options], env=environment(**ENGINE), stderr=-1
        ) as server:
            assert server.stderr
            said = ""
            async for piece in TextReceiveStream(server.stderr):
                said += piece
                if "until Ctrl-C" in said:
                    break
            (url,) = re.findall(r"Anthropic's at (http://\S+)\.", said)
            async with httpx.AsyncClient(base_url=url, timeout=None) as client:
                for path in (CHAT, MESSAGES):
                    answer = await client.post(path, json=question(path, "hello"))
                    assert "You said: hello" in answer.text
            server.terminate()
            assert await server.wait() == 143
