"""The vendor's program: where it is, what it can do, who is signed in, and how it is ended.

`find_program` takes the setting KIRO_MCP_KIRO_CLI, else the first `kiro-cli` in PATH and in the
folders where it is installed: clients start a server with a short PATH. A `Program` then answers
questions by running the program once each. The program is a launcher that does not pass signals on
to what it starts, so each run has a process group of its own, which `stop` ends as a whole.

The program gets few variables of the environment: those by which it finds its login, proxies and
certificates, and `KIRO_MCP_DEPTH`, by which a kiro-mcp that it might start knows that it is nested.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import anyio
from anyio.abc import ByteReceiveStream, Process

from kiro_mcp.chat import ModelInfo
from kiro_mcp.errors import InvalidRequest, ServiceUnavailable, quoted
from kiro_mcp.redaction import redact
from kiro_mcp.wire.json_values import (
    UnreadableError,
    number_member,
    object_members,
    parse_object,
    positive_member,
    word_member,
)
from kiro_mcp.wire.models import known_model

Dialect = Literal["v2", "v3"]

NAME: Final = "kiro-cli"

VERSION_SECONDS: Final = 10.0
WHOAMI_SECONDS: Final = 30.0
"""It may renew the login, which takes up to 20 seconds."""
MODELS_SECONDS: Final = 30.0

MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
"""How much of a run's output is read; the list of models has about 20 KiB."""

LEAST_VERSION: Final = "2.13"
"""The oldest version whose protocol is known well."""

STOP_SECONDS: Final = 1.0
"""How long a process group may take to end by itself, and again after it was told to."""

INSTALL_STEP: Final = (
    "Install it from https://kiro.dev/docs/cli, name it in KIRO_MCP_KIRO_CLI, or set"
    " KIRO_MCP_ENGINE=direct."
)
LOGIN_STEP: Final = (
    "Run `kiro-cli login` in a terminal on the machine of this server (on a remote machine:"
    " `kiro-cli login --use-device-flow`), then call again."
)

_PASSED_ON: Final = frozenset(
    """
    HOME USER LOGNAME USERNAME USERPROFILE HOMEDRIVE HOMEPATH PATH PATHEXT SHELL LANG LANGUAGE TZ
    TMPDIR TMP TEMP APPDATA LOCALAPPDATA PROGRAMDATA PROGRAMFILES SYSTEMROOT SYSTEMDRIVE WINDIR
    COMSPEC HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR
    NODE_EXTRA_CA_CERTS AWS_CA_BUNDLE DBUS_SESSION_BUS_ADDRESS KIRO_API_KEY KIRO_LOG_LEVEL
    KIRO_KAS_ENDPOINT KIRO_KAS_CONTROL_PLANE_ENDPOINT
    """.split()  # noqa: SIM905 - a list of names is easier to read without quotes
)
"""The variables that the program gets, in any case; those that begin with `XDG_` or `LC_`, too."""

_VERSION: Final = re.compile(r"\b(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The program: how it is run."""

    command: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)

    async def version(self) -> str:
        """Return its version, such as `2.21.4`; "" if it does not say.

        Raises:
            KiroError: It cannot be run.
        """
        done = await self.run("--version", seconds=VERSION_SECONDS)
        found = _VERSION.search(done.stdout)
        return found[0] if found else ""

    async def describe(self, dialect: Dialect) -> str:
        """Return its version and place, and the dialect that is spoken, in words.

        Raises:
            KiroError: It cannot be run.
        """
        version = await self.version() or "of unknown version"
        return f"{NAME} {version}, dialect {dialect}, {shlex.join(self.command)}"

    async def flags(self) -> frozenset[str]:
        """Return the flags of its command `acp`.

        Raises:
            KiroError: It cannot be run, or is too old to have the command.
        """
        done = await self.run("acp", "--help", seconds=VERSION_SECONDS)
        flags = read_flags(done.stdout + done.stderr)
        if not flags:
            raise ServiceUnavailable(
                f"This {NAME} has no command `acp`, so it is too old.",
                next_step=f"Use version {LEAST_VERSION} or later, or KIRO_MCP_ENGINE=direct.",
            )
        return flags

    async def is_signed_in(self) -> bool:
        """Return whether somebody is signed in to the program. It may renew the login meanwhile.

        Raises:
            KiroError: It cannot be run, or does not say in time.
        """
        return (await self.run("whoami", seconds=WHOAMI_SECONDS)).returncode == 0

    async def list_models(self) -> tuple[tuple[ModelInfo, ...], str]:
        """Return the models that it offers, and the id of its default ("" if it names none).

        Raises:
            KiroError: It cannot be run, or gives no list, as when nobody is signed in.
        """
        done = await self.run("chat", "--list-models", "--format", "json", seconds=MODELS_SECONDS)
        try:
            models, default = read_models(done.stdout)
        except UnreadableError:
            models, default = (), ""
        if done.returncode or not models:
            lines = (done.stderr or done.stdout).split("\n")
            said = next((redact(line.strip()) for line in reversed(lines) if line.strip()), "")
            why = f" ({said[:200].rstrip('.')})" if said else ""
            raise ServiceUnavailable(
                f"{NAME} gave no list of models{why}.",
                next_step="Check that `kiro-cli whoami` names an account.",
            )
        return models, default

    async def run(self, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run the program to its end.

        Raises:
            KiroError: It cannot be started, or does not end in time.
        """
        process = await start((*self.command, *arguments), self.environ, cwd=None)
        output: list[bytes] = []
        errors: list[bytes] = []
        try:
            with anyio.fail_after(seconds):
                await process.stdin.aclose() if process.stdin else None
                async with anyio.create_task_group() as readers:
                    readers.start_soon(_read, process.stdout, output)
                    readers.start_soon(_read, process.stderr, errors)
                code = await process.wait()
        except TimeoutError:
            raise ServiceUnavailable(
                f"`{NAME} {' '.join(arguments)}` did not end within {seconds:g} seconds.",
                next_step="Run it in a terminal to see why.",
                code="timeout",
            ) from None
        finally:
            await stop(process, seconds=0)
        said, logged = (b"".join(pieces).decode(errors="replace") for pieces in (output, errors))
        return subprocess.CompletedProcess(arguments, code, said, logged)


# --- finding it ---------------------------------------------------------------------------


def find_program(named: str, environ: Mapping[str, str], *, depth: int = 0) -> Program:
    """Find the program.

    Args:
        named: The setting: a path or a command line; "" to look for the program.
        environ: The environment, which says where to look, and what it gets of it.
        depth: How deep this server is nested in other calls.

    Raises:
        InvalidRequest: It is not there.
    """
    command = _named_command(named) if named else _installed_command(environ)
    if not command:
        where = f" as KIRO_MCP_KIRO_CLI={quoted(named)} says" if named else ""
        raise InvalidRequest(f"{NAME} was not found{where}.", next_step=INSTALL_STEP)
    return Program(command=command, environ=child_environment(environ, depth=depth))


def child_environment(environ: Mapping[str, str], *, depth: int = 0) -> dict[str, str]:
    """Return the variables that the program gets."""
    kept = {
        name: value
        for name, value in environ.items()
        if name.upper() in _PASSED_ON or name.startswith(("XDG_", "LC_"))
    }
    return {**kept, "KIRO_NO_AUTO_UPDATE": "1", "KIRO_MCP_DEPTH": str(depth + 1)}


def _named_command(named: str) -> tuple[str, ...]:
    path = os.path.expanduser(named)
    if os.path.isfile(path):
        return (path,)
    try:  # A backslash is no escape on Windows.
        words = shlex.split(named, posix=os.name == "posix")
    except ValueError:
        return ()
    words = [word.strip('"') for word in words]
    found = shutil.which(os.path.expanduser(words[0])) if words else None
    return (found, *words[1:]) if found else ()


def _installed_command(environ: Mapping[str, str]) -> tuple[str, ...]:
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or "~").expanduser()
    folders = [*environ.get("PATH", "").split(os.pathsep)]
    if sys.platform == "win32":
        local, programs = environ.get("LOCALAPPDATA"), environ.get("ProgramFiles")
        folders += [str(Path(base, "Kiro-Cli")) for base in (local, programs) if base]
    else:
        folders += [str(home / ".local" / "bin"), str(home / "bin")]
        folders += ["/opt/homebrew/bin", "/usr/local/bin"]
        folders.append("/Applications/Kiro CLI.app/Contents/MacOS")
    found = shutil.which(NAME, path=os.pathsep.join(filter(None, folders)))
    return (found,) if found else ()


# --- reading what it says -----------------------------------------------------------------


def read_flags(help_text: str) -> frozenset[str]:
    """Return the flags that the help of `acp` lists; empty if the program has no such command."""
    flags = frozenset(re.findall(r"--[a-z][a-z-]+", help_text))
    return flags if flags & {"--agent", "--auth-method"} else frozenset()


def dialect_of(flags: frozenset[str]) -> Dialect:
    """Return the dialect to speak: V3 if the program can log in by itself there, else v2."""
    return "v3" if "--auth-method" in flags else "v2"


def read_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version; () if there is none in the text."""
    found = _VERSION.search(text)
    return tuple(int(number) for number in found.groups() if number) if found else ()


def read_models(text: str) -> tuple[tuple[ModelInfo, ...], str]:
    """Read the program's list of models; what it does not say comes from the built-in list.

    Raises:
        UnreadableError: It is not a JSON object.
    """
    page = parse_object(text[text.find("{") :].encode()) if "{" in text else {}
    models: list[ModelInfo] = []
    for entry in object_members(page, "models"):
        model_id = word_member(entry, "model_id")
        if not model_id:
            continue
        known = known_model(model_id)
        window = positive_member(entry, "context_window_tokens")
        rate = number_member(entry, "rate_multiplier")
        models.append(
            replace(
                known,
                name=word_member(entry, "model_name") or known.name,
                context_window=window or known.context_window,
                rate_multiplier=rate if rate is not None else known.rate_multiplier,
            )
        )
    return tuple(models), word_member(page, "default_model")


# --- processes ----------------------------------------------------------------------------


async def start(command: Sequence[str], environ: Mapping[str, str], *, cwd: Path | None) -> Process:
    """Start a process in a group of its own.

    Raises:
        InvalidRequest: It cannot be started.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        return await anyio.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd=cwd,
            start_new_session=os.name == "posix",
            creationflags=flags,
        )
    except OSError as error:
        raise InvalidRequest(
            f"{NAME} cannot be started: {error.strerror or error}.", next_step=INSTALL_STEP
        ) from error


async def stop(process: Process, *, seconds: float = STOP_SECONDS) -> None:
    """End a process and all that it has started: by its stdin, then by signals.

    It runs to its end even if it is cancelled.

    Args:
        process: The process.
        seconds: How long it may take to end by itself, and again after it was told to end.
    """
    with anyio.CancelScope(shield=True):
        if process.stdin:
            with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                await process.stdin.aclose()
        for number in (_NO_SIGNAL, signal.SIGTERM, _KILL):
            is_there = await _signal_group(process, number)
            with anyio.move_on_after(STOP_SECONDS if number is _KILL else seconds):
                while is_there:
                    await anyio.sleep(0.01)  # Nothing tells of a group's end.
                    is_there = await _signal_group(process, _NO_SIGNAL)
            if not is_there:
                break
        with anyio.move_on_after(STOP_SECONDS):
            await process.wait()
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    await pipe.aclose()


_NO_SIGNAL: Final = 0
_KILL: Final = signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL


async def _signal_group(process: Process, number: int) -> bool:
    """Send a signal to a process group, or none; return whether the group is there."""
    try:
        if sys.platform != "win32":
            os.killpg(process.pid, number)
            return True
        if number != _NO_SIGNAL:
            command = ("taskkill", "/F", "/T", "/PID", str(process.pid))
            await anyio.run_process(command, check=False)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # macOS permits no signals to processes that have ended and are not yet waited for.
    return process.returncode is None


async def _read(stream: ByteReceiveStream | None, pieces: list[bytes]) -> None:
    """Read a stream to its end; what is over the limit is dropped."""
    room = MAX_OUTPUT_BYTES
    if stream is None:
        return
    async for piece in stream:
        if room > 0:
            pieces.append(piece[:room])
            room -= len(piece)
