"""Call the server from agent frameworks: `python -m tests.interop.frameworks [NAME …]`.

Each framework runs in an environment that uv makes for it, with a scripted model in place of a real
one, and the server answers from the emulator. The checks look at what the model gets to read. One
line for a framework and a check; exits with 0 if all are ok. What cannot be installed is skipped.
With `-v` it prints what each model read.
"""

import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from kiro_mcp.emulator.accounts import EMULATOR_API_KEY
from kiro_mcp.emulator.body import Conversation
from kiro_mcp.emulator.server import running
from kiro_mcp.emulator.state import GENERATE, EmulatorState
from tests.interop.run import TOOLS, ClientFailed, Report, python_with, seen
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

HERE = Path(__file__).parent


async def framework_works(name: str, *, is_verbose: bool) -> bool:
    """Let a framework make its calls, and check what its model read."""
    packages = FRAMEWORKS[name]
    client = [*await python_with(*packages), str(HERE / f"with_{name}.py"), *COMMAND, "serve"]
    with TemporaryDirectory() as home:
        async with running() as emulator:
            try:
                report = await seen(
                    client,
                    KIRO_MCP_ENDPOINT_URL=emulator.url,
                    KIRO_API_KEY=EMULATOR_API_KEY,
                    KIRO_MCP_HOME=home,
                )
            except ClientFailed as failure:
                print(f"{packages[0]}: FAILED: {failure}", flush=True)
                return False
            problems = problems_of(report)
    for check, wrong in problems.items():
        print(f"{packages[0]}: {check}: {f'FAILED: {wrong}' if wrong else 'ok'}", flush=True)
    if is_verbose:
        for what, text in report.items():
            print(f"--- {what}\n{text}")
    if "long" in report:
        print(f"{packages[0]}: {long_call(report, emulator.state)}", flush=True)
    return not any(problems.values())


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
    problems = {what: "" if is_right else text for what, (text, is_right) in read.items()}
    has_tools = report["tools"] == TOOLS
    return {"it has the three tools": "" if has_tools else str(report["tools"]), **problems}


def long_call(report: Report, state: EmulatorState) -> str:
    """Tell what became of a call that takes longer than the framework waits."""
    prompts = Counter(
        "curlew" in Conversation(request.body).current.content
        for request in state.requests_to(GENERATE)
    )
    tries, last = len(report["long"]), report["long"][-1]
    outcome = "answered" if "curlew" in last else f"not answered ({last[:80]!r})"
    return f"a call of 7 s: {outcome} after {tries} tries, with {prompts[True]} requests"


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if name != "-v"] or list(FRAMEWORKS)
    codes = [
        exit_code(name, partial(framework_works, name, is_verbose="-v" in sys.argv))
        for name in chosen
    ]
    sys.exit(max(codes))
