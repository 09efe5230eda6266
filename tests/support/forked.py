"""Runs `kiro-mcp` in a process that is forked from one that has imported it already.

A command takes a second to import its modules and a tenth of one to run. So each test worker has
one process, the stem, that imports them once; a command is a fork of it, with arguments, variables,
folder and streams of its own. Everything else is as in a process started anew: its exit code, its
signals, its output. Tests in which the start itself is the point start one (`stdio.COMMAND`).

::

    test ── socket (arguments, variables, folder; streams, a pipe for the result) ─▶ stem ─▶ fork
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess
from types import MappingProxyType
from typing import Any, NoReturn

import anyio

import kiro_mcp.__main__ as program
from tests.support.stdio import COMMAND, PipeReader

MAX_REQUEST_BYTES = 1024 * 1024
MAX_PIPE_BYTES = 60_000
"""What a pipe takes at once, on every system."""


async def run_forked(
    *arguments: str,
    env: Mapping[str, str],
    stdin: bytes | None = None,
    cwd: Path | None = None,
    streams: Mapping[str, int] = MappingProxyType({}),
) -> CompletedProcess[bytes]:
    """Run a command to its end.

    Args:
        *arguments: What follows `kiro-mcp`.
        env: Its variables.
        stdin: What is piped in; None for no input.
        cwd: The folder that it runs in; None for this one.
        streams: Where `stdout` or `stderr` goes; what is not named is returned.
    """
    command = [*COMMAND, *arguments]
    if sys.platform != "linux" or len(stdin or b"") > MAX_PIPE_BYTES:
        given: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": DEVNULL}
        given |= streams
        return await anyio.run_process(command, check=False, env=env, cwd=cwd, **given)
    results = {"stdout": b"", "stderr": b""}

    async def read(name: str, fd: int) -> None:
        async with PipeReader(fd) as reader:
            results[name] = b"".join([chunk async for chunk in reader])

    input_end = os.open(os.devnull, os.O_RDONLY)
    if stdin is not None:
        os.close(input_end)
        input_end, write_end = os.pipe()
        os.write(write_end, stdin)
        os.close(write_end)
    pipes = {name: os.pipe() for name in ("stdout", "stderr", "code") if name not in streams}
    ends = {name: write_end for name, (_, write_end) in pipes.items()}
    request = {"arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd())}
    all_ends = [input_end, *({**ends, **streams}[name] for name in ("stdout", "stderr", "code"))]
    socket.send_fds(_stem(), [json.dumps(request).encode()], all_ends)
    for end in (input_end, *ends.values()):
        os.close(end)
    async with anyio.create_task_group() as tasks:
        for name, (read_end, _) in pipes.items():
            tasks.start_soon(read, name, read_end)
    code = int(results["code"])
    return CompletedProcess(command, code, results["stdout"], results["stderr"])


_stems: list[socket.socket] = []


def _stem() -> socket.socket:
    """Return the socket of this worker's stem, which ends with it."""
    if not _stems:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST_BYTES)
        program = [sys.executable, "-m", "tests.support.forked", str(theirs.fileno())]
        process = subprocess.Popen(program, pass_fds=[theirs.fileno()], stdin=DEVNULL)
        theirs.close()
        atexit.register(process.wait)
        atexit.register(ours.close)
        _stems.append(ours)
    return _stems[0]


# --- the stem ------------------------------------------------------------------------------------


def _serve(requests: socket.socket) -> NoReturn:
    """Fork for each request, and write the exit code of each fork, until nobody asks any more."""
    wake_end, signal_end = os.pipe()
    os.set_blocking(wake_end, False)
    os.set_blocking(signal_end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(signal_end)
    running: dict[int, int] = {}  # The pipe for the exit code, by process.
    while True:
        ready, _, _ = select.select([requests, wake_end], [], [])
        if wake_end in ready:
            os.read(wake_end, 4096)
            while running:
                process_id, status = os.waitpid(-1, os.WNOHANG)
                if process_id == 0:
                    break
                code_end = running.pop(process_id)
                os.write(code_end, str(os.waitstatus_to_exitcode(status)).encode())
                os.close(code_end)
        if requests in ready:
            request, ends, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 4)
            if not request:
                os._exit(0)
            process_id = os.fork()
            if process_id == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in (requests.fileno(), wake_end, signal_end, ends[3], *running.values()):
                    os.close(fd)
                _run(json.loads(request), ends[:3])
            running[process_id] = ends[3]
            for end in ends[:3]:
                os.close(end)


def _run(request: dict[str, Any], ends: list[int]) -> NoReturn:
    """Become the command."""
    for number, end in enumerate(ends):
        os.dup2(end, number)
        os.close(end)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = [program.__file__, *request["arguments"]]
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    code: object = 1
    try:
        program.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    for module in ("account", "ask", "developer", "doctor", "install"):
        import_module(f"kiro_mcp.cli.{module}")
    import_module("kiro_mcp.server.engine")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _serve(socket.socket(fileno=int(sys.argv[1])))
