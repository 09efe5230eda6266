"""What the clients share. It runs in a client's environment, without our package.

A client file makes its checks with `@check` and ends with `main()`, which prints one JSON object:
for each check, what is wrong, or "". The address of the server is the first argument.
"""

import json
import sys
import traceback

BASE = sys.argv[1]
MODEL = "claude-sonnet-4.5"
KEY = "nobody's"

HELLO = "hello from a client"
SAID = f"You said: {HELLO}"
ARGUMENTS = {"city": "Paris", "days": [1, 2], "place": {"note": 'caf\u00e9 "x"', "is_near": True}}
CALL = f"/emulate tool_use {json.dumps(ARGUMENTS)}"
RESULT = "two avocets"
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "place": {"type": "object", "properties": {"note": {"type": "string"}}},
    },
    "required": ["city"],
}
TYPED = "/emulate typed"
"""Gets `CITY` as JSON."""
CITY = {"city": "Paris", "days": [1, 2]}
THINK = "/emulate reasoning"
THOUGHT = "The emulator reasons before it answers."
AT_ONCE = 64

CHECKS = {}


def check(what):
    """Make a function a check of that name; it fails by raising."""

    def add(function):
        CHECKS[what] = function
        return function

    return add


def same(seen, wanted):
    """Fail if two values differ."""
    if seen != wanted:
        raise AssertionError(f"{seen!r} is not {wanted!r}")


def has(text, wanted):
    """Fail if a text does not contain another."""
    if wanted not in (text or ""):
        raise AssertionError(f"{text!r} does not contain {wanted!r}")


def raises(kind, act):
    """Fail unless an action raises this kind of exception; return it."""
    try:
        seen = act()
    except kind as error:
        return error
    raise AssertionError(f"returned {seen!r} and did not raise {kind.__name__}")


def main():
    """Make all checks, and print what is wrong."""
    # A library may print to standard output, which is for the report alone.
    report_to, sys.stdout = sys.stdout, sys.stderr
    report = {}
    for what, function in CHECKS.items():
        try:
            function()
            report[what] = ""
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[1]
            report[what] = f"line {at.lineno}: {type(error).__name__}: {error}"
    print(json.dumps(report), file=report_to)
