"""`kiro-mcp ask`: one prompt; its answer on stdout while it comes, its cost on stderr.

::

    Question ─▶ arguments_of ─▶ ask_claude ─▶ LiveText ─▶ Output (a thread) ─▶ stdout
    (typed, files, a pipe)          │
                                    └─▶ warnings, cost, how to continue ─▶ stderr

Files are read here, and not by the server: whoever types a path at a shell may open it, and
`KIRO_MCP_ROOTS` stays a rule for models that call tools. What comes early is a preview; the result
counts. Printing has its own thread: a slow reader, or a terminal that is held with Ctrl-S, holds
up neither the answer nor Ctrl-C.
"""

import json
import math
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from select import select
from threading import Timer
from typing import Any, Final, TextIO, cast

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.client import IncomingMessage

from kiro_mcp.auth.files import read_text, replace_text
from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.cli.output import REFUSED, OutputError, harmless, harmless_json
from kiro_mcp.cli.session import connected, failed, run_command
from kiro_mcp.cli.terminal import Wait, tell, tell_error, waiting
from kiro_mcp.errors import InvalidRequest, KiroError
from kiro_mcp.server.ask import NOT_SAVED
from kiro_mcp.server.attachments import MAX_FILE_BYTES
from kiro_mcp.server.call import STREAM_META_KEY
from kiro_mcp.settings import Settings
from kiro_mcp.wire.content import document_text
from kiro_mcp.wire.images import MAX_IMAGE_BYTES, image_from_bytes, image_from_url

# --- arguments ----------------------------------------------------------------------------


STDIN: Final = "-"
"""The prompt that stands for standard input."""

PATIENCE_SECONDS: Final = 3.0
"""After so long a person is told that standard input is being read, and has not ended."""

FIRST_BYTE_SECONDS: Final = 1.0
"""How long a prompt waits for the first byte of a pipe.

Programs that start this one may leave a pipe open and never write to it. A command on the left
of a pipe often needs a moment until it says something.
"""

LOOK_UP_SECONDS: Final = 0.2
"""How long reading standard input may take no notice of Ctrl-C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The command line of `ask`."""

    words: tuple[str, ...]
    files: tuple[str, ...]
    images: tuple[str, ...]
    system: str
    model: str
    effort: str | None
    """None for the default."""
    schema: str
    """A JSON Schema, or the path of a file with one; "" for none."""
    max_tokens: int
    continued: str | None
    """The conversation to go on with: an id, "" for the last one, None for a new one."""
    dry_run: bool
    as_json: bool
    offline: bool


def piped_in(question: Question, stdin: TextIO | None) -> str:
    """Read standard input, where something is piped in or `-` asks for it. Blocks.

    A character device has nothing to say unasked: it is a terminal, or `/dev/null`. Beside a
    prompt, a pipe that stays silent is not waited for; one that has begun is read to its end.

    Raises:
        InvalidRequest: It is no UTF-8 text, or too large.
    """
    if stdin is None or not (question.words == (STDIN,) or _is_fed(stdin.fileno())):
        return ""
    has_prompt = question.words and question.words != (STDIN,)
    if has_prompt and not _begins(stdin):
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
        # A signal that comes right before a read blocks would be noticed only after it.
        while sys.platform != "win32" and not select([stream], [], [], LOOK_UP_SECONDS)[0]:
            pass
        piece = stream.read1(limit - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


def _begins(stdin: TextIO) -> bool:
    """Wait a moment, and say whether there is something to read, or the end."""
    # On Windows `select` takes sockets only: there a pipe is read to its end.
    return sys.platform == "win32" or bool(select([stdin], [], [], FIRST_BYTE_SECONDS)[0])


def _is_fed(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def arguments_of(question: Question, piped: str, conversation_id: str) -> dict[str, Any]:
    """Return the arguments of the call. Reads files, and blocks.

    Raises:
        InvalidRequest: A file cannot be read or used, or there is nothing to ask.
    """
    documents = [_document(path) for path in question.files]
    images = [_image(given) for given in question.images]
    typed = "" if question.words == (STDIN,) else " ".join(question.words)
    if not (question.words or piped or documents or images):
        raise InvalidRequest(
            "There is nothing to ask.",
            next_step='Give a prompt: kiro-mcp ask "…". Or pipe one in.',
        )
    return {
        "prompt": "\n\n".join(text for text in (*documents, typed, piped) if text),
        "images": images,
        "system": question.system,
        "model": question.model,
        "effort": question.effort or "",
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
    is_address = given[:5].lower() == "data:" or "://" in given
    if is_address:
        part = image_from_url(given, location=f"--image {given[:60]!r}")
    else:
        data = _read(given, "--image", MAX_IMAGE_BYTES)
        part = image_from_bytes(data, location=f"--image {given!r}")
    return f"data:image/{part.format};base64,{part.data}"


def _read(path: str, option: str, limit: int) -> bytes:
    try:
        # Not only regular files: a person may name a pipe, as `<(git diff)` does.
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
            f"{what} is no UTF-8 text.", next_step="Send text, or a picture with --image."
        ) from None


def _schema(given: str) -> dict[str, Any]:
    if not given:
        return {}
    is_inline = given.lstrip().startswith("{")
    try:
        schema = json.loads(given if is_inline else _read(given, "--schema", MAX_FILE_BYTES))
    except (ValueError, RecursionError):
        raise _no_schema(given, "it is no JSON") from None
    if not isinstance(schema, dict):
        raise _no_schema(given, "it is no JSON object")
    return cast("dict[str, Any]", schema)


def _no_schema(given: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"--schema cannot be used: {given[:60]!r} ({why}).",
        next_step="Give a JSON Schema, or the path of a file with one.",
    )


# --- the last conversation ----------------------------------------------------------------


FILE_NAME: Final = "last-conversation"


class LastConversation:
    """The note of it.

    Args:
        path: Where it is; None where conversations end with the command.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @classmethod
    def of(cls, environ: Mapping[str, str], *, offline: bool) -> "LastConversation":
        """Find it.

        Raises:
            InvalidRequest: A setting cannot be used.
        """
        if offline:
            return cls(None)  # Nothing is kept there, wherever the settings would have it.
        settings = Settings.load(environ)
        home = own_home(Machine.of(environ, sys.platform), settings.home)
        is_kept = home is not None and settings.store == "disk"
        return cls(home / FILE_NAME if home and is_kept else None)

    @property
    def is_kept(self) -> bool:
        """Whether a conversation outlives the command that it was held with."""
        return self._path is not None

    def read(self) -> str:
        """Return the conversation's id.

        Raises:
            InvalidRequest: There is none.
        """
        if self._path is None:
            raise InvalidRequest(
                "There is nothing to continue: with --offline or KIRO_MCP_STORE=memory a"
                " conversation ends with its command.",
                next_step="Ask without --continue; `kiro-mcp emulate` is an emulator that stays.",
            )
        try:
            if conversation_id := read_text(self._path).strip():
                return conversation_id
        except (OSError, ValueError):
            pass  # Nobody has asked yet, or the note is no use.
        raise InvalidRequest(
            "This command line has no conversation to continue yet.",
            next_step="Ask without --continue first, or name a conversation: --continue ID.",
            code="not_found",
        )

    def write(self, conversation_id: str) -> None:
        """Note the conversation. Where that fails, `--continue` alone will not find it."""
        if self._path is not None:
            with suppress(OSError):
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_text(self._path, conversation_id)

    def forget(self) -> None:
        """Continue none, until the next answer."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


# --- printing -----------------------------------------------------------------------------


class LiveText:
    """How much of one answer has been printed. Pure."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._count = 0
        self._is_behind = False

    def take(self, offset: int, text: str) -> str:
        """Return what to print now of a piece that begins at a character of the text.

        After a gap, or where the text begins anew, nothing is printed until it is whole.
        """
        self._is_behind = self._is_behind or offset != self._count
        if self._is_behind:
            return ""
        self._shown.append(text)
        self._count += len(text)
        return text

    def finish(self, text: str) -> str:
        """Return what is missing of the whole text, and the newline that ends it.

        Where another text was shown before, the whole follows on a line of its own.
        """
        shown = "".join(self._shown)
        rest = text[len(shown) :] if text.startswith(shown) else f"\n{text}"
        return rest if text.endswith("\n") or not text else f"{rest}\n"


class Output:
    """Standard output, for text that comes in pieces."""

    def __init__(self, stream: TextIO) -> None:
        self.fault: OSError | None = None
        """Why it cannot be printed to, once it cannot."""
        self._stream = stream
        self._is_terminal = stream.isatty()  # Also one that can do little (TERM=dumb).
        self._is_mid_line = False
        # Its limit is that of an answer.
        self._put, self._pieces = anyio.create_memory_object_stream[str](math.inf)

    def put(self, text: str) -> None:
        """Print this, in a moment, unless printing has ended."""
        if text:
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                self._put.send_nowait(text)

    def close(self) -> None:
        """Say that nothing more comes; `run` ends once all is printed."""
        self._put.close()

    async def run(self, call: anyio.CancelScope) -> None:
        """Print what is put; where nobody reads any more, cancel the call that it comes of."""
        with self._put, self._pieces:
            try:
                async for text in self._pieces:
                    await anyio.to_thread.run_sync(self._print, text, abandon_on_cancel=True)
            except OSError as error:
                self.fault = error
                call.cancel()

    def end_line(self) -> None:
        """Have what comes next on the terminal begin a line of its own, as a prompt should."""
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
    return run_command(Asking(question, arguments, last).run)


class Asking:
    """One call of `ask_claude`, and what a person sees of it."""

    def __init__(
        self, question: Question, arguments: dict[str, Any], last: LastConversation
    ) -> None:
        self._question = question
        self._arguments = arguments
        self._last = last
        self._live = LiveText()
        self._has_begun = False
        self._is_live = not (question.as_json or question.schema or question.dry_run)

    async def run(self) -> int:
        """Ask, print, and return the exit code."""
        try:
            result = await self._printed()
        except anyio.get_cancelled_exc_class():
            # What came is kept, in a conversation that has not been named yet.
            if self._has_begun:
                self._forget_older()
            raise
        return failed(result) if result.is_error else self._told(result.structured_content)

    async def _printed(self) -> types.CallToolResult:
        """Ask and print.

        Raises:
            OutputError: It cannot be printed. Nothing goes on then.
        """
        output = Output(sys.stdout)
        result: types.CallToolResult | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(output.run, tasks.cancel_scope)
                with waiting("thinking") as wait:
                    result = await self._answered(output, wait)
                output.put(self._live.finish(self._text(result)))
                output.close()
        finally:
            output.end_line()
        if output.fault:
            raise OutputError(output.fault)
        assert result  # Nothing else ends the group without one.
        return result

    async def _answered(self, output: Output, wait: Wait) -> types.CallToolResult:
        async def take(message: IncomingMessage) -> None:
            piece = _piece_of(message)
            if piece is None:
                return
            self._has_begun = True
            wait.words = "receiving"
            if self._is_live and (text := self._live.take(piece["offset"], piece["text"])):
                wait.end()  # Also where a pipe is between: its end may be this terminal.
                output.put(text)

        async with connected(offline=self._question.offline, on_message=take) as client:
            return await client.call_tool(
                "ask_claude",
                self._arguments,
                meta={"progress_token": "answer", STREAM_META_KEY: True},  # pyright: ignore[reportArgumentType]  # an open map
            )

    def _text(self, result: types.CallToolResult) -> str:
        """Return what standard output gets."""
        if result.is_error:
            return ""
        answer = result.structured_content
        if self._question.as_json:
            return harmless_json(answer)
        if self._question.schema and answer.get("data") is not None:
            return harmless_json(answer["data"])
        return answer["text"]

    # --- what standard error gets -------------------------------------------------------------

    def _told(self, answer: dict[str, Any]) -> int:
        is_kept = answer["status"] == "completed" and self._last.is_kept
        if is_kept and any(warning.startswith(NOT_SAVED) for warning in answer.get("warnings", [])):
            is_kept = False
            self._forget_older()
        if is_kept:
            self._last.write(answer["conversation_id"])
        if self._question.as_json:
            if answer["truncated"]:
                tell("warning: The answer is incomplete.")
        else:
            for line in _remarks(answer):
                tell(line)
            for line in _facts(answer, is_kept=is_kept):
                tell(line, style="dim")
        return REFUSED if self._is_refused(answer) else 0

    def _forget_older(self) -> None:
        """Have the next question, without an id, not go on with an older conversation."""
        if not self._arguments["conversation_id"]:
            self._last.forget()

    def _is_refused(self, answer: dict[str, Any]) -> bool:
        """Whether a program must not go on: what was asked for is not there, or not all of it."""
        is_untyped = answer["status"] == "completed" and answer.get("data") is None
        is_untyped = is_untyped and bool(self._question.schema)
        return bool(answer["truncated"] or answer.get("findings") or is_untyped)


def _piece_of(message: IncomingMessage) -> dict[str, Any] | None:
    if isinstance(message, types.ProgressNotification) and message.params.meta:
        return message.params.meta.get(STREAM_META_KEY)
    return None


def _remarks(answer: dict[str, Any]) -> Iterator[str]:
    for warning in answer.get("warnings", []):
        yield f"warning: {warning}"
    if answer["status"] == "completed" and answer.get("next_step"):
        yield answer["next_step"]
    for finding in answer.get("findings", []):
        yield f"{finding['rule']}: {finding['place']} {finding['cause']}. {finding['cure']}"
    if asked_for := ", ".join(call["name"] for call in answer["tool_calls"]):
        yield f"warning: Claude asks for {asked_for}. No tool is run here; --json shows the calls."
    for citation in answer.get("citations", []):
        names = ("title", "license", "repository", "url")
        yield f"source: {' '.join(citation[name] for name in names if name in citation)}"


def _facts(answer: dict[str, Any], *, is_kept: bool) -> Iterator[str]:
    if answer["status"] == "completed":
        yield " · ".join(_cost(answer))
    if is_kept:
        conversation_id = answer["conversation_id"]
        yield f'Continue with: kiro-mcp ask -c "…"   (later: -c {conversation_id} "…")'


def _cost(answer: dict[str, Any]) -> Iterator[str]:
    usage = answer["usage"]
    about = "about " if usage.get("estimated") else ""
    yield answer["model"]
    yield f"{about}{usage['input_tokens']} tokens in, {usage['output_tokens']} out"
    if (credits := usage.get("credits")) is not None:
        yield f"{credits:g} credits"
    if (percent := usage.get("context_percent")) is not None:
        share = f"{percent:.1f} %" if percent >= 0.1 else "under 0.1 %"
        yield f"{share} of the context window"
