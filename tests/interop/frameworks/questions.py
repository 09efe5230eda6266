"""The calls that each framework makes. It runs in the framework's environment, without our package.

A client file gives a context manager that starts the server, named on the command line, and yields
a list and a function. The function calls `ask_claude` with arguments, as the framework's agent does
when its model asks for it, and returns what the model then gets to read. The list has the names of
the tools after the first call: those that the model had in its first request.
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
SERVER_WAITS = 50
"""After so many seconds, the server answers a call with `running` and an `answer_id`."""
TRIES = 10
"""How often a model calls until it reads an answer that takes long."""

CALL_SECONDS = 90


def main(connected, *, patience_seconds=SERVER_WAITS):
    """Make the calls and print what the model sees, as JSON.

    `patience_seconds` says when the framework gives up a call, if that is before the server does.
    """
    # A framework may print to standard output, which is for the report alone.
    report_to, sys.stdout = sys.stdout, sys.stderr
    report = asyncio.run(_report(connected, patience_seconds))
    print(json.dumps(report), file=report_to)


async def _report(connected, patience_seconds):
    what, command, *arguments = sys.argv[1:]
    async with connected(command, arguments, dict(os.environ)) as (tools, ask):
        # On a busy machine, the first call may take longer than a framework waits.
        await _seen(ask, {"prompt": PLAIN, "dry_run": True})
        if what == "tools":
            return {"tools": sorted(tools)}
        if what == "long":
            return {"long": await _long(ask, patience_seconds + 2)}
        return await _answers(ask)


async def _answers(ask):
    report = {"answer": await _seen(ask, {"prompt": PLAIN})}
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
    return report


async def _long(ask, seconds):
    """Ask for an answer that takes so long, and call as often as a model is told to."""
    call = {"prompt": f"/emulate slow {seconds}\nDescribe the curlew."}
    texts = []
    while len(texts) < TRIES:
        texts.append(await _seen(ask, call))
        # One framework shows the model the answer's id in every result, after "kiro-mcp/".
        if (answer_id := _found(r"(?<!/)answer_id\W+([\w-]+)", texts[-1])) != "not seen":
            call = {"answer_id": answer_id}
        elif "curlew" in texts[-1]:
            break
    return texts


async def _seen(ask, arguments):
    try:
        return await asyncio.wait_for(ask(arguments), CALL_SECONDS)
    except Exception as error:
        return f"RAISED {type(error).__name__}: {error}"


def _found(pattern, text):
    found = re.search(pattern, text)
    return found[1] if found else "not seen"
