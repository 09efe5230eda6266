"""The calls that each framework makes. It runs in the framework's environment, without our package.

A client file gives a context manager that starts the server, named on the command line, and yields
the names of the tools and a function: it calls `ask_claude` with arguments, as the framework's
agent does when its model asks for it, and returns what the model then gets to read.
"""

import asyncio
import json
import os
import re
import sys

PLAIN = "Say something about the lapwing."
ARGUMENTS = {"order": {"items": [{"sku": "A-7", "count": 2}]}}
SHOP = {
    "name": "shop.order",
    "description": "Order things",
    "inputSchema": {
        "type": "object",
        "properties": {
            "order": {
                "type": "object",
                "properties": {"items": {"type": "array", "items": {"type": "object"}}},
            }
        },
    },
}
LONG = "/emulate slow 7\nDescribe the curlew."
TRIES = 3
"""How often a model that meets a time-out makes the same call."""

CALL_SECONDS = 60


def main(connected, *, is_impatient=False):
    """Make the calls and print what the model sees, as JSON.

    A framework is impatient if it gives up a call after a few seconds unless told otherwise.
    """
    # A framework may print to standard output, which is for the report alone.
    report_to, sys.stdout = sys.stdout, sys.stderr
    report = asyncio.run(_report(connected, is_impatient=is_impatient))
    print(json.dumps(report), file=report_to)


async def _report(connected, *, is_impatient):
    command, *arguments = sys.argv[1:]
    report = {}
    async with connected(command, arguments, dict(os.environ)) as (tools, ask):
        report["tools"] = sorted(tools)
        # On a busy machine, the first call may take longer than a framework waits.
        await _seen(ask, {"prompt": PLAIN, "dry_run": True})
        report["answer"] = await _seen(ask, {"prompt": PLAIN})
        prompt = f"/emulate tool_use {json.dumps(ARGUMENTS)}"
        report["call"] = await _seen(ask, {"prompt": prompt, "tools": [SHOP]})
        # The model copies both ids from what it read.
        ids = {
            "conversation_id": _found(r"conversation_id\W+([\w-]+)", report["call"]),
            "tool_results": [
                {"id": _found(r"(tooluse_\w+)", report["call"]), "content": "two avocets"}
            ],
        }
        report["result"] = await _seen(ask, ids)
        report["error"] = await _seen(ask, {"prompt": "/emulate quota"})
        if is_impatient:
            report["long"] = []
            while len(report["long"]) < TRIES and "curlew" not in "".join(report["long"]):
                report["long"].append(await _seen(ask, {"prompt": LONG}))
    return report


async def _seen(ask, arguments):
    try:
        return await asyncio.wait_for(ask(arguments), CALL_SECONDS)
    except Exception as error:
        return f"RAISED {type(error).__name__}: {error}"


def _found(pattern, text):
    found = re.search(pattern, text)
    return found[1] if found else "not seen"
