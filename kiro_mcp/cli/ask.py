"""`kiro-mcp ask`: sends one prompt, streams the answer to stdout and prints its cost to stderr.

::

    Question ─▶ arguments_of ─▶ ask_claude ─▶ LiveText ─▶ Output (a thread) ─▶ stdout
    (typed, files, a pipe)          │
                                    └─▶ warnings, cost, how to continue ─▶ stderr

This command reads the files itself. The server does not, because `KIRO_MCP_ROOTS` restricts models
that call tools, and not the person who types a path at a shell. Streamed text is a preview; the
result counts. A separate thread prints, so that a slow reader, or a terminal paused with Ctrl-S,
delays neither the answer nor Ctrl-C.
"""

import json
import math
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from select import select
from threading import Timer
from typing import Any, Final, TextIO, cast

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.client import IncomingMessage

from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.cli.output import REFUSED, OutputError, harmless, harmless_json
from kiro_mcp.cli.session import connected, failed, run_command
from kiro_mcp.cli.terminal import tell, tell_error, waiting
from kiro_mcp.errors import InvalidRequest, KiroError
from kiro_mcp.files import read_text, replace_text
from kiro_mcp.server.ask import NOT_SAVED
from kiro_mcp.server.attachments import MAX_FILE_BYTES
from kiro_mcp.server.call import STREAM_META_KEY
from kiro_mcp.settings import Settings
from kiro_mcp.wire.images import MAX_IMAGE_BYTES, image_from_bytes, image_from_url
from kiro_mcp.wire.messages import document_text

# --- arguments ----------------------------------------------------------------------------


STDIN: Final = "-"
"""The prompt that means: read it from standard input."""

PATIENCE_SECONDS: Final = 3.0
"""After this time a hint says that standard input is still being read."""

FIRST_BYTE_SECONDS: Final = 1.0
"""How long a command with a prompt waits for the first byte of a pipe.

A parent process may leave a pipe open and never write to it. A command on the left side of a pipe
often needs a moment before it writes.
"""

LOOK_UP_SECONDS: Final = 0.2
"""How often reading standard input checks for Ctrl-C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The command line of `ask`."""

    words: tuple[str, ...]
    files: tuple[str, ...]
    images: tuple[str, ...]
    system: str
    model: str
    effort: str
    schema: str
    """A JSON Schema, or the path of a file with one; "" for none."""
    max_tokens: int
    continued: str | None
    """The conversation to continue: an id, "" for the last one, None for a new one."""
    dry_run: bool
    as_json: bool
    offline: bool


def piped_in(question: Question, stdin: TextIO | None) -> str:
    """Read standard input if something is piped in, or if the prompt is `-`. Blocking.

    A character device, which is a terminal or `/dev/null`, is read only for `-`. If there is a
    prompt, a pipe that stays silent is ignored; a pipe that has begun is read to its end.

    Raises:
        InvalidRequest: It is not UTF-8 text, or it is too large.
    """
    if stdin is None:
        return ""
    if question.words != (STDIN,):
        mode = os.fstat(stdin.fileno()).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
            return ""
        # On Windows `select` takes sockets only, so a pipe is always read to its end.
        can_wait = question.words and sys.platform != "win32"
        if can_wait and not select([stdin], [], [], FIRST_BYTE_SECONDS)[0]:
            return ""
    is_typed = stdin.isatty()
    words = "Type the prompt; Ctrl-D ends it." if is_typed else "Reading standard input …"
    hint = Timer(0 if is_typed else PATIENCE_SECONDS, tell, [words])
    hint.daemon = True
    hint.start()
    try:
        data = _read_to_end(cast("BufferedReader", stdin.buffer), MAX_FILE_BYTES + 1)
    finally:
        hint.cancel()
    return _decoded(_limited(data, "Standard input", MAX_FILE_BYTES), "Standard input")


def _read_to_end(stream: BufferedReader, limit: int) -> bytes:
    data = bytearray()
    while len(data) < limit:
        # A signal that arrives right before a read blocks would be noticed only after the read.
        while sys.platform != "win32" and not select([stream], [], [], LOOK_UP_SECONDS)[0]:
            pass
        piece = stream.read1(limit - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


def arguments_of(question: Question, piped: str, conversation_id: str) -> dict[str, Any]:
    """Return the arguments of the call. Reads the files; blocking.

    Raises:
        InvalidRequest: A file cannot be read or used, or there is nothing to ask.
    """
    documents = [_document(path) for path in question.files]
    images = [_image(given) for given in question.images]
    typed = "" if question.words == (STDIN,) else " ".join(question.words)
    if not (question.words or piped or documents or images):
        raise InvalidRequest(
            "Nothing was asked.",
            next_step='Give a prompt: kiro-mcp ask "…". Or pipe one in.',
        )
    return {
        "prompt": "\n\n".join(text for text in (*documents, typed, piped) if text),
        "images": images,
        "system": question.system,
        "model": question.model,
        "effort": question.effort,
        "output_schema": _schema(question.schema),
        "max_tokens": question.max_tokens,
        "conversation_id": conversation_id,
        "dry_run": question.dry_run,
        "wait_seconds": 0,  # A person waits, and can press Ctrl-C.
    }


def _document(path: str) -> str:
    data = _read(path, "--file", MAX_FILE_BYTES)
    return document_text(Path(path).name, _decoded(data, f"--file {path!r}")).text


def _image(given: str) -> str:
    is_url = given[:5].lower() == "data:" or "://" in given
    if is_url:
        part = image_from_url(given, location=f"--image {given[:60]!r}")
    else:
        data = _read(given, "--image", MAX_IMAGE_BYTES)
        part = image_from_bytes(data, location=f"--image {given!r}")
    return f"data:image/{part.format};base64,{part.data}"


def _read(path: str, option: str, limit: int) -> bytes:
    try:
        # Not only regular files: `<(git diff)` names a pipe.
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequest(
            f"{option} cannot be read: {path!r} ({why}).", next_step="Check the path."
        ) from None
    return _limited(data, f"{option} {path!r}", limit)


def _limited(data: bytes, what: str, limit: int) -> bytes:
    if len(data) > limit:
        raise InvalidRequest(
            f"{what} is larger than {limit} bytes.", next_step="Send the part that matters."
        )
    return data


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{what} is not UTF-8 text.", next_step="Send text, or a picture with --image."
        ) from None


def _schema(given: str) -> dict[str, Any]:
    if not given:
        return {}
    is_inline = given.lstrip().startswith("{")
    try:
        schema = json.loads(given if is_inline else _read(given, "--schema", MAX_FILE_BYTES))
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidRequest(
            f"--schema cannot be used: {given[:60]!r} (it is not a JSON object).",
            next_step="Give a JSON Schema, or the path of a file with one.",
        )
    return cast("dict[str, Any]", schema)


# --- the last conversation ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LastConversation:
    """The file that names the last conversation of this command line."""

    path: Path | None
    """None if conversations are not kept after the command."""

    @classmethod
    def of(cls, environ: Mapping[str, str], *, offline: bool) -> "LastConversation":
        """Return the file that the settings choose.

        Raises:
            InvalidRequest: A setting cannot be used.
        """
        if offline:
            return cls(None)  # Offline, nothing is saved, whatever the settings say.
        settings = Settings.load(environ)
        home = own_home(Machine.of(environ, sys.platform), settings.home)
        return cls(home / "last-conversation" if home and settings.store == "disk" else None)

    def read(self) -> str:
        """Return the conversation's id.

        Raises:
            InvalidRequest: No conversation can be continued.
        """
        if self.path is None:
            raise InvalidRequest(
                "No conversation can be continued: with --offline or KIRO_MCP_STORE=memory a"
                " conversation ends with its command.",
                next_step="Ask without --continue; `kiro-mcp emulate` runs an emulator that stays.",
            )
        try:
            if conversation_id := read_text(self.path).strip():
                return conversation_id
        except (OSError, ValueError):
            pass  # The file does not exist yet, or it cannot be read.
        raise InvalidRequest(
            "This command line has no conversation to continue yet.",
            next_step="Ask without --continue first, or name a conversation: --continue ID.",
            code="not_found",
        )

    def write(self, conversation_id: str) -> None:
        """Save the conversation's id. If that fails, `--continue` without an id cannot find it."""
        if self.path is not None:
            with suppress(OSError):
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_text(self.path, conversation_id)

    def forget(self) -> None:
        """Delete the file, so that `--continue` has no conversation until the next answer."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


# --- printing -----------------------------------------------------------------------------


class LiveText:
    """How much of one answer has been printed. Pure."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._count = 0
        self._is_behind = False

    def take(self, offset: int, text: str) -> str:
        """Return what to print now of a piece that begins at this character of the text.

        After a gap, or if the text starts again, nothing is printed until the text is complete.
        """
        self._is_behind = self._is_behind or offset != self._count
        if self._is_behind:
            return ""
        self._shown.append(text)
        self._count += len(text)
        return text

    def finish(self, text: str) -> str:
        """Return the rest of the complete text, with a newline at its end.

        If a different text has been printed, return the complete text on a new line.
        """
        shown = "".join(self._shown)
        rest = text[len(shown) :] if text.startswith(shown) else f"\n{text}"
        return rest if text.endswith("\n") or not text else f"{rest}\n"


class Output:
    """Standard output, for text that comes in pieces."""

    def __init__(self, stream: TextIO) -> None:
        self.fault: OSError | None = None
        """The error of the write that failed; None while writing works."""
        self._stream = stream
        self._is_terminal = stream.isatty()  # A terminal with TERM=dumb counts, too.
        self._is_mid_line = False
        # The size limit of an answer limits this buffer.
        self._put, self._pieces = anyio.create_memory_object_stream[str](math.inf)

    def put(self, text: str) -> None:
        """Queue text for printing. Does nothing after printing has ended."""
        if text:
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                self._put.send_nowait(text)

    def close(self) -> None:
        """Accept no more text; `run` ends when everything is printed."""
        self._put.close()

    async def run(self, call: anyio.CancelScope) -> None:
        """Print the queued text. If that fails, set `fault` and cancel the call."""
        with self._put, self._pieces:
            try:
                async for text in self._pieces:
                    await anyio.to_thread.run_sync(self._print, text, abandon_on_cancel=True)
            except OSError as error:
                self.fault = error
                call.cancel()

    def end_line(self) -> None:
        """On a terminal, end the line that was begun, so that the shell's prompt gets its own."""
        if self._is_terminal and self._is_mid_line and self.fault is None:
            self._print("\n")

    def _print(self, text: str) -> None:
        self._is_mid_line = not text.endswith("\n")
        self._stream.write(harmless(text) if self._is_terminal else text)
        self._stream.flush()


# --- the command --------------------------------------------------------------------------


def run_ask(question: Question) -> int:
    """Ask and return the exit code."""
    try:
        last = LastConversation.of(os.environ, offline=question.offline)
        conversation_id = last.read() if question.continued == "" else question.continued or ""
        arguments = arguments_of(question, piped_in(question, sys.stdin), conversation_id)
    except KiroError as error:
        return tell_error(error)
    return run_command(partial(_ask, question, arguments, last))


async def _ask(question: Question, arguments: dict[str, Any], last: LastConversation) -> int:
    """Ask, print the answer while it comes, and return the exit code.

    A task of its own prints, beside the call. If nobody reads any more, it cancels the call.

    Raises:
        OutputError: The answer cannot be printed.
    """
    live, output = LiveText(), Output(sys.stdout)
    is_live = not (question.as_json or question.schema or question.dry_run)
    has_begun = False
    result: types.CallToolResult | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(output.run, tasks.cancel_scope)
            with waiting("thinking") as wait:

                async def take(message: IncomingMessage) -> None:
                    nonlocal has_begun
                    if not isinstance(message, types.ProgressNotification):
                        return
                    piece = (message.params.meta or {}).get(STREAM_META_KEY)
                    if piece is None:
                        return
                    has_begun = True
                    wait.words = "receiving"
                    if is_live and (text := live.take(piece["offset"], piece["text"])):
                        wait.end()  # For a pipe, too: its reader may print to this terminal.
                        output.put(text)

                async with connected(offline=question.offline, on_message=take) as client:
                    result = await client.call_tool(
                        "ask_claude",
                        arguments,
                        meta={"progress_token": "answer", STREAM_META_KEY: True},  # pyright: ignore[reportArgumentType]  # an open map
                    )
            output.put(live.finish(_printed_text(question, result)))
            output.close()
    except BaseException:
        # If printing failed, it has cancelled the call, and the call's error follows from that.
        if output.fault is None:
            # The server saves the partial answer in a conversation whose id is not known here, and
            # the next `--continue` must not continue an older one.
            if has_begun and not arguments["conversation_id"]:
                last.forget()
            raise
    finally:
        output.end_line()
    if output.fault:
        raise OutputError(output.fault)
    assert result  # Only a failed write ends the group without a result.
    if result.is_error:
        return failed(result)
    is_new = not arguments["conversation_id"]
    return _report(question, result.structured_content, last, is_new=is_new)


def _printed_text(question: Question, result: types.CallToolResult) -> str:
    """Return the text for standard output."""
    if result.is_error:
        return ""
    answer = result.structured_content
    if question.as_json:
        return harmless_json(answer)
    if question.schema and answer.get("data") is not None:
        return harmless_json(answer["data"])
    return answer["text"]


def _report(
    question: Question, answer: dict[str, Any], last: LastConversation, *, is_new: bool
) -> int:
    """Print warnings, cost and how to continue to stderr; return the exit code."""
    is_whole = answer["status"] == "completed"
    is_saved = is_whole and last.path is not None
    if is_saved and any(one.startswith(NOT_SAVED) for one in answer.get("warnings", [])):
        is_saved = False
        if is_new:
            last.forget()
    if is_saved:
        last.write(answer["conversation_id"])
    if question.as_json:
        if answer["truncated"]:
            tell("warning: The answer is incomplete.")
    else:
        for line in _remarks(answer):
            tell(line)
        if is_whole:
            tell(" · ".join(_cost(answer)), style="dim")
        if is_saved:
            later = f'(later: -c {answer["conversation_id"]} "…")'
            tell(f'Continue with: kiro-mcp ask -c "…"   {later}', style="dim")
    lacks_data = bool(question.schema) and is_whole and answer.get("data") is None
    return REFUSED if answer["truncated"] or answer.get("findings") or lacks_data else 0


def _remarks(answer: dict[str, Any]) -> Iterator[str]:
    for warning in answer.get("warnings", []):
        yield f"warning: {warning}"
    if answer["status"] == "completed" and answer.get("next_step"):
        yield answer["next_step"]
    for finding in answer.get("findings", []):
        yield f"{finding['rule']}: {finding['place']} {finding['cause']}. {finding['cure']}"
    if asked_for := ", ".join(call["name"] for call in answer["tool_calls"]):
        yield f"warning: Claude calls {asked_for}. No tool is run here; --json shows the calls."
    for citation in answer.get("citations", []):
        names = ("title", "license", "repository", "url")
        yield f"source: {' '.join(citation[name] for name in names if name in citation)}"


def _cost(answer: dict[str, Any]) -> Iterator[str]:
    usage = answer["usage"]
    about = "about " if usage.get("estimated") else ""
    yield answer["model"]
    count = usage["input_tokens"]
    yield f"{about}{count} token{'' if count == 1 else 's'} in, {usage['output_tokens']} out"
    if (credits := usage.get("credits")) is not None:
        yield f"{credits:g} credits"
    if (percent := usage.get("context_percent")) is not None:
        share = f"{percent:.1f} %" if percent >= 0.1 else "under 0.1 %"
        yield f"{share} of the context window"
