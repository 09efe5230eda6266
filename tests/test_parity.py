"""Every promise of the programs before this one: proven by a test, or answered with a reason.

The promises are in `tests/parity/`, one file for each program that made them.
"""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, TypeAdapter

from kiro_mcp.settings import variables

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def numbered(program: int, count: int) -> list[str]:
    return [f"{program}-{number}" for number in range(1, count + 1)]


# Kept beside the entries, so that one which is deleted is missed.
PROMISES: dict[str, list[str]] = {
    "provider_note": numbered(0, 28),
    "go_executor": [*numbered(1, 63), "1-40-others", "1-46-doubles"],
    "kiro_gateway": numbered(2, 28),
    "go_port": numbered(3, 16),
    "variables": [
        *("SERVER_HOST", "SERVER_PORT", "PROXY_API_KEY", "LOG_LEVEL", "DEBUG_MODE", "DEBUG_DIR"),
        *("KIRO_CREDS_FILE", "KIRO_CLI_DB_FILE", "SQLITE_READONLY", "KIRO_API_KEY"),
        *("REFRESH_TOKEN", "KIRO_ACCESS_TOKEN", "PROFILE_ARN", "KIRO_REGION", "KIRO_API_REGION"),
        *("VPN_PROXY_URL", "TOKEN_REFRESH_THRESHOLD", "MAX_RETRIES", "BASE_RETRY_DELAY"),
        *("FIRST_TOKEN_TIMEOUT", "FIRST_TOKEN_MAX_RETRIES", "STREAMING_READ_TIMEOUT"),
        *("FAKE_REASONING", "FAKE_REASONING_MAX_TOKENS", "FAKE_REASONING_HANDLING"),
        *("FAKE_REASONING_BUDGET_CAP", "FAKE_REASONING_INITIAL_BUFFER_SIZE", "MODEL_CACHE_TTL"),
        *("TOOL_DESCRIPTION_MAX_LENGTH", "TRUNCATION_RECOVERY", "WEB_SEARCH_ENABLED"),
        *("KIRO_MAX_PAYLOAD_BYTES", "AUTO_TRIM_PAYLOAD"),
    ],
}


class Entry(BaseModel, frozen=True, extra="forbid"):
    """What became of one promise."""

    promise: str
    tests: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    here: str = ""


def read(program: str) -> dict[str, Entry]:
    text = (TESTS / "parity" / f"{program}.toml").read_text("utf-8")
    return TypeAdapter(dict[str, Entry]).validate_python(tomllib.loads(text))


ENTRIES = {program: read(program) for program in PROMISES}
BY_NAME = {name: entry for entries in ENTRIES.values() for name, entry in entries.items()}


@functools.cache
def names_of_tests(file: str) -> frozenset[str]:
    """The tests of a file, read without running it; empty if the file does not exist."""
    path = TESTS / file
    body = ast.parse(path.read_text("utf-8")).body if path.exists() else []
    functions = (one for one in body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(one.name for one in functions if one.name.startswith("test_"))


def is_there(node: str) -> bool:
    file, _, name = node.partition("::")
    return name in names_of_tests(file)


@pytest.mark.parametrize("program", PROMISES)
def test_no_promise_is_missing_and_none_is_invented(program: str) -> None:
    """An entry that is removed from the list would be forgotten."""
    assert sorted(ENTRIES[program]) == sorted(PROMISES[program])


@pytest.mark.parametrize("entry", BY_NAME.values(), ids=BY_NAME)
def test_a_promise_is_proven_or_answered(entry: Entry) -> None:
    """And in words that can be read by themselves."""
    assert entry.promise
    assert entry.tests or entry.pages or entry.here
    assert len(set(entry.tests)) == len(entry.tests)
    assert not entry.here or entry.here.endswith(".")


@pytest.mark.parametrize("entry", BY_NAME.values(), ids=BY_NAME)
def test_the_tests_that_prove_a_promise_exist(entry: Entry) -> None:
    """A test that was renamed or deleted proves nothing."""
    assert [node for node in entry.tests if not is_there(node)] == []
    assert [page for page in entry.pages if not (ROOT / page).is_file()] == []


# --- the names of variables ---------------------------------------------------------------

ROWS = re.findall(
    r"^\| (`.*?) \| (.*) \|$", (ROOT / "docs" / "kiro-gateway.md").read_text("utf-8"), re.M
)


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([A-Z][A-Z0-9_]*[A-Z0-9])`", cell)


def test_each_variable_is_a_setting_or_has_a_row() -> None:
    """A user of the gateway finds every line of a .env file."""
    told = [name for theirs, _ in ROWS for name in names_in(theirs)]
    assert len(set(told)) == len(told)
    assert set(PROMISES["variables"]) <= {*told, *variables()}


@pytest.mark.parametrize(("theirs", "ours"), ROWS, ids=[row[0] for row in ROWS])
def test_each_row_names_settings_that_exist(theirs: str, ours: str) -> None:
    settings = {name for name in names_in(ours) if name.startswith("KIRO_")}
    assert settings <= set(variables())
    if ours.startswith("the same after `KIRO_MCP_`"):
        settings = {f"KIRO_MCP_{name}" for name in names_in(theirs)}
    elif ours.startswith("the same"):
        settings = set(names_in(theirs))
    assert settings <= set(variables())
    assert settings or ours.startswith("none") or not names_in(theirs)
