"""Call the server from agent frameworks: `python -m tests.interop.frameworks [NAME …]`.

Each framework runs in an environment that uv makes for it, with a scripted model in place of a real
one, and the server answers from the emulator. The checks look at what the model gets to read. One
line for a framework and a check; exits with 0 if all are ok. What cannot be installed is skipped.
With `-v` it prints what each model read; `--starts N` starts each N times to look for the tools.
Takes minutes, so CI does not run it.
"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from kiro_mcp.emulator.app import running
from kiro_mcp.emulator.state import GENERATE, EmulatorState
from tests.interop.run import TOOLS, ClientFailed, Report, python_with, seen
from tests.support.http import against, serving_http
from tests.support.optional import exit_code
from tests.support.stdio import COMMAND

FRAMEWORKS = {
    "langchain": ["langchain-mcp-adapters==0.3.2"],
    "pydantic_ai": ["pydantic-ai-slim[mcp]==2.68.0"],
    "openai_agents": ["openai-agents==0.24.0"],
    "autogen": ["autogen-ext[mcp]==0.7.5", "mcp<2"],
    "google_adk": ["google-adk[mcp]==2.13.0"],
    "smolagents": ["smolagents[mcp]==1.26.0", "mcp<2"],
    "llama_index": ["llama-index-tools-mcp==0.6.0"],
}
"""The packages of each framework; its client is `with_NAME.py`."""

OVER_HTTP = {"llama_index"}
"""Long answers are asked for over HTTP here: over stdio, each call is a process of its own.

It gives up after 30 s and ends the process, and with it the answer that the next call would join.
"""

HERE = Path(__file__).parent


async def framework_works(name: str, *, starts: int, is_verbose: bool) -> bool:
    """Let a framework make its calls, and check what its model read."""
    packages = FRAMEWORKS[name]
    client = [*await python_with(*packages), str(HERE / f"with_{name}.py")]
    async with running() as emulator:
        service = against(emulator)

        async def run(what: str, *server: str) -> Report:
            with TemporaryDirectory() as home:
                return await seen([*client, what, *server], KIRO_MCP_HOME=home, **service)

        serve = [*COMMAND, "serve"]
        try:
            listed = [await run("tools", *serve) for _ in range(starts)]
            report = await run("answers", *serve)
            if name in OVER_HTTP:
                async with serving_http(service) as server:
                    report |= await run("long", server.url)
            else:
                report |= await run("long", *serve)
        except ClientFailed as failure:
            print(f"{packages[0]}: FAILED: {str(failure)!r}", flush=True)
            return False
    problems = {
        **problem_of_tools([start["tools"] for start in listed]),
        **problems_of(report),
        **problem_of_long_call(report["long"], emulator.state, is_http=name in OVER_HTTP),
    }
    for check, wrong in problems.items():
        print(f"{packages[0]}: {check}: {f'FAILED: {wrong!r}' if wrong else 'ok'}", flush=True)
    if is_verbose:
        for what, text in report.items():
            print(f"--- {what}\n{text}")
    return not any(problems.values())


def problem_of_tools(listed: list[list[str]]) -> dict[str, str]:
    """Check which tools the model had in the first request of each start."""
    wrong = [tools for tools in listed if tools != TOOLS]
    right = len(listed) - len(wrong)
    check = f"the model has the three tools in its first request, {right} of {len(listed)} starts"
    return {check: f"the tools were {wrong[0]}" if wrong else ""}


def problems_of(report: Report) -> dict[str, str]:
    """Say for each check what is wrong; an empty text if nothing is."""
    # Some frameworks put JSON into a JSON string.
    call = re.sub(r"[\\\s]", "", report["call"])
    # Two frameworks give the model the whole result: its content and its structured content.
    is_whole = re.search("structured_?content", report["answer"], re.IGNORECASE)
    read = {
        "the model reads the answer once, and the conversation's id": (
            report["answer"],
            report["answer"].count("lapwing") == (2 if is_whole else 1)
            and "conversation_id" in report["answer"],
        ),
        "it reads the id, name and arguments of a tool call": (
            report["call"],
            "tooluse_" in call
            and '"shop.order"' in call
            # One framework writes Python in place of JSON, but next to the JSON.
            and '"order":{"items":[{"sku":"A-7","count":2}]}' in call,
        ),
        "its tool result reaches Claude": (report["result"], "two avocets" in report["result"]),
        "it reads what an error is": (
            report["error"],
            "quota_exhausted" in report["error"] and "usage limit" in report["error"],
        ),
    }
    return {what: "" if is_right else text for what, (text, is_right) in read.items()}


def problem_of_long_call(
    texts: list[str], state: EmulatorState, *, is_http: bool
) -> dict[str, str]:
    """Check the calls for an answer that takes longer than the framework or the server waits."""
    requests = sum("curlew" in request.prompt for request in state.requests_to(GENERATE))
    is_right = len(texts) > 1 and requests == 1 and "curlew" in texts[-1]
    where = ", over HTTP" if is_http else ""
    check = f"a long answer is read at call {len(texts)}, with {requests} request(s){where}"
    return {check: "" if is_right else str(texts)}


def main() -> int:
    """Run the frameworks that are named, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.frameworks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FRAMEWORKS))
    parser.add_argument("--starts", type=int, default=1, metavar="N")
    parser.add_argument("-v", dest="is_verbose", action="store_true")
    given = parser.parse_args()
    works = partial(framework_works, starts=given.starts, is_verbose=given.is_verbose)
    return max(exit_code(name, partial(works, name)) for name in given.names or FRAMEWORKS)


if __name__ == "__main__":
    sys.exit(main())
