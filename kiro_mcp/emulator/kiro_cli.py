"""A stand-in for the vendor's program `kiro-cli`, for `--offline` and for tests.

    python -m kiro_mcp.emulator.kiro_cli [--dialect v2|v3] [--scene NAME]... [--scale N]
                                         [--log FILE] ARGS...

ARGS are those of kiro-cli: `--version`, `whoami`, `acp`, `acp --help` and
`chat --list-models --format json`. `acp` speaks JSON-RPC, one object a line, on stdin and stdout.

The dialect is what the program can do: `v2` is an older program, which has no `--auth-method`;
`v3`, the default, also has the V3 engine, which `acp --agent-engine v3` selects. The stand-in is
strict wherever the real program is known to be strict, so that a wrong client fails here: it
answers an error, exits without a word, or never answers.

A prompt is answered by the scripts of `kiro_mcp.emulator.scripts`: `/emulate NAME` in the last text
block picks one, and `/emulate session` answers with the session as JSON. A tool call really goes to
the MCP server that the client names; it is dropped after 120 seconds. `--scale N` makes this and
all other waits N times shorter. A scene is a fault or a rare behaviour: a name of `SCENES`, or of a
script, which then answers every prompt. `--log FILE` appends what the client sent, and how the
program was started, as JSON lines.

Source of truth: captures of kiro-cli 2.12 to 2.28 and the vendor's documentation (2026).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TextIO

from kiro_mcp.emulator.catalogue import CATALOGUE, DEFAULT_MODEL_ID, EFFORTS

SCENES: Final[Mapping[str, str]] = {
    "agent_not_found": "v2: the agent is not found, although its file is there",
    "agent_switched": "v2: another agent takes over during a prompt",
    "bad_lines": "lines that are not JSON-RPC before every message",
    "cancel_ignored": "a cancelled prompt runs on and never ends",
    "compaction": "the history is compacted during a prompt",
    "crash": "the process ends in the middle of an answer",
    "exit_0": "the process ends at session/new, with code 0 and without a word",
    "expired": "session/new fails: the login has expired",
    "expired_prompt": "session/prompt fails: the login has expired",
    "foreign_tool": "the model calls a tool that the client did not offer",
    "full_stderr": "a megabyte of logs on stderr before every answer",
    "hang_initialize": "initialize is never answered",
    "hang_prompt": "session/prompt is never answered",
    "hang_session": "session/new is never answered",
    "id_collision": "before every answer, a request of the program's own with the same id",
    "invalid_history": "session/prompt fails: the history is invalid",
    "late_model": "V3: the model option comes after the answer to session/new",
    "late_usage": "usage comes 100 ms after the answer to a prompt",
    "long_after_tools": "the answer after tool calls is long",
    "network_error": "session/prompt fails: the program cannot reach the service",
    "no_v2": "the program has no v2 engine any more",
    "not_logged_in": "nobody is signed in: exit 1",
    "not_logged_in_hang": "nobody is signed in: acp never answers",
    "old": "the program has no acp",
    "orphan": "a launcher with a child that outlives it and ignores the end of stdin",
    "permission": "the model asks for permission to use a tool of its own",
    "rate_limited": "session/prompt fails: too many requests",
    "refusal_empty": "an answer without text that ends with refusal",
    "request_timeout": "a tool call is dropped after the agent file's requestTimeout instead",
    "retry_call": "after a dropped tool call, the model makes the same call again",
    "slow_whoami": "whoami takes 15 seconds",
    "tools_interrupted": "v2: the text that tool uses were interrupted, and no answer",
    "two_calls": "two parallel tool calls in every prompt",
    "unknown_stop": "an answer with an unknown stop reason",
    "usage_limit": "session/prompt fails: the monthly limit is reached",
    "user_servers": "an MCP server of the user is started, too",
    "watchdog": "v2: notices of a stalled stream, and a text that is discarded and sent again",
}

VERSIONS: Final = {"v2": "2.19.1", "v3": "2.28.0"}

_NOT_LOGGED_IN: Final = "You are not logged in, please log in with kiro-cli login"
_VALUE_FLAGS: Final = ("--agent", "--model", "--effort", "--trust-tools", "--agent-engine")
_V2_ONLY_FLAGS: Final = ("--agent", "--model", "--effort", "--trust-tools", "--trust-all-tools")


# --- the program


@dataclass(frozen=True, slots=True)
class Options:
    """How the stand-in behaves."""

    dialect: str = "v3"
    scenes: frozenset[str] = frozenset()
    scale: float = 1.0
    log: Path | None = None
    is_child: bool = False
    argv: tuple[str, ...] = ()
    """All words that the stand-in was started with."""

    @property
    def is_signed_in(self) -> bool:
        """Whether somebody is signed in."""
        return not self.scenes & {"not_logged_in", "not_logged_in_hang"}

    @property
    def version(self) -> str:
        """The version of the program."""
        return VERSIONS[self.dialect]

    def record(self, **facts: object) -> None:
        """Append a line to the log."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")


def main(argv: Sequence[str]) -> int:
    """Run the program with the stand-in's own options and those of kiro-cli; return its code."""
    try:
        given, words = read_options(argv)
        return _run(given, words)
    except UsageError as error:
        _write(f"error: {error}\n\nFor more information, try '--help'.", sys.stderr)
        return 2


class UsageError(Exception):
    """The program was started with wrong words."""


def read_options(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Read the stand-in's own options; return them and the words for kiro-cli.

    Raises:
        UsageError: An option is wrong.
    """
    words, given = list(argv), Options(argv=tuple(argv))
    while words and words[0] in ("--dialect", "--scene", "--scale", "--log", "--child"):
        option = words.pop(0)
        if option == "--child":
            given = replace(given, is_child=True)
            continue
        if not words:
            raise UsageError(f"{option} needs a value")
        value = words.pop(0)
        match option:
            case "--dialect":
                given = replace(given, dialect=value)
            case "--scene":
                given = replace(given, scenes=given.scenes | {value})
            case "--scale":
                try:
                    given = replace(given, scale=float(value))
                except ValueError:
                    raise UsageError(f"--scale {value!r:.80} is not a number") from None
            case _:
                given = replace(given, log=Path(value))
    if unknown := given.scenes - SCENES.keys():
        from kiro_mcp.emulator.scripts import BUILT_IN  # Few starts need it.

        if unknown := unknown - BUILT_IN.keys():
            raise UsageError(f"no scene {min(unknown)!r}; known are {', '.join(SCENES)}")
    if given.dialect not in VERSIONS:
        raise UsageError(f"no dialect {given.dialect!r}; known are v2 and v3")
    return given, words


def _run(given: Options, words: Sequence[str]) -> int:
    given.record(args=words, pid=os.getpid(), cwd=str(Path.cwd()), environ=sorted(os.environ))
    match words:
        case ["--version" | "-V"]:
            _write(f"kiro-cli {given.version}")
        case ["whoami", *_]:
            if "slow_whoami" in given.scenes:
                time.sleep(15 / given.scale)
            _write("Logged in with Builder ID" if given.is_signed_in else "Not logged in")
            return 0 if given.is_signed_in else 1
        case ["chat", *rest] if "--list-models" in rest:
            if not given.is_signed_in:
                _write(_NOT_LOGGED_IN, sys.stderr)
                return 1
            _write(_list_models(as_json="json" in rest))
        case ["acp", *rest] if "old" not in given.scenes:
            return _run_acp(given, rest)
        case _:
            raise UsageError(f"unrecognized subcommand '{words[0] if words else ''}'")
    return 0


def _list_models(*, as_json: bool) -> str:
    models = [
        {
            "model_id": model["modelId"],
            "model_name": model["modelName"],
            "description": model["description"],
            "context_window_tokens": model["tokenLimits"]["maxInputTokens"],
            "rate_multiplier": model["rateMultiplier"],
            "rate_unit": model["rateUnit"],
        }
        for model in CATALOGUE
    ]
    if as_json:
        return json.dumps({"models": models, "default_model": DEFAULT_MODEL_ID})
    return "\n".join(model["model_id"] for model in models)


def _run_acp(given: Options, words: Sequence[str]) -> int:
    if "--help" in words or "-h" in words:
        value_flags, engines = _known_flags(given)
        _write("Run Kiro as an Agent Client Protocol agent\n\nUsage: kiro-cli acp [OPTIONS]\n")
        _write("Options:\n  -a, --trust-all-tools\n  -h, --help")
        for flag in value_flags:
            suffix = f" [possible values: {', '.join(engines)}]" if "engine" in flag else ""
            _write(f"      {flag} <{flag.strip('-').replace('-', '_').upper()}>{suffix}")
        return 0
    engine, flags = read_flags(given, words)
    if "not_logged_in" in given.scenes:
        _write(_NOT_LOGGED_IN, sys.stderr)
        return 1
    if "orphan" in given.scenes and not given.is_child:
        # The real launcher does not pass SIGTERM on to the program that it starts.
        again = [sys.executable, "-m", "kiro_mcp.emulator.kiro_cli", "--child", *given.argv]
        return subprocess.run(again, check=False).returncode  # noqa: S603  # our own arguments
    import anyio  # Only this command needs it.

    from kiro_mcp.emulator.acp_server import AcpServer

    def write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    home = Path(os.environ.get("KIRO_HOME") or Path.home() / ".kiro")
    server = AcpServer(given, engine, flags, home=home, write=write, end=os._exit)
    anyio.run(server.serve, anyio.wrap_file(sys.stdin.buffer))
    if "orphan" in given.scenes:
        time.sleep(3600)
    os._exit(0)  # Without waiting for the thread that reads stdin.


def _known_flags(given: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the flags of `acp` that have a value, and the engines."""
    newer = ("--auth-method",) if given.dialect == "v3" else ()
    return (*_VALUE_FLAGS, *newer), ("v3",) if "no_v2" in given.scenes else ("v1", "v2", "v3")


def read_flags(given: Options, words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Read the flags of `acp`; return the engine and the flags.

    Raises:
        UsageError: A flag is wrong.
    """
    value_flags, engines = _known_flags(given)
    flags: dict[str, str] = {}
    rest = list(words)
    while rest:
        flag, _, value = rest.pop(0).partition("=")
        if flag in value_flags:
            if not value and not rest:
                raise UsageError(f"a value is required for '{flag}'")
            flags[flag] = value or rest.pop(0)
        elif flag in ("-a", "--trust-all-tools"):
            flags["--trust-all-tools"] = ""
        else:
            raise UsageError(f"unexpected argument '{flag}' found")
    engine = flags.get("--agent-engine", engines[-1] if len(engines) == 1 else "v2")
    if engine not in engines:
        raise UsageError(f"invalid value '{engine}' for '--agent-engine'")
    if flags.get("--effort", "low") not in EFFORTS:
        raise UsageError(f"invalid value '{flags['--effort']}' for '--effort'")
    if engine != "v3":
        return "v2", flags
    for flag in _V2_ONLY_FLAGS:
        if flag in flags:
            raise UsageError(f"'{flag}' cannot be used with '--agent-engine v3'")
    return "v3", flags


def _write(text: str, stream: TextIO | None = None) -> None:
    out = stream or sys.stdout
    out.write(f"{text}\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
