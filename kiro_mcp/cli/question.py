"""What a person typed, named and piped in -> the arguments of one call of `ask_claude`.

Files are read here, and not by the server: whoever types a path at a shell has opened it, and
`KIRO_MCP_ROOTS` stays what it is, a rule for models that call tools.
"""

import json
import os
import stat
import sys
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from select import select
from threading import Timer
from typing import Any, Final, TextIO, cast

from kiro_mcp.cli.terminal import tell
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.server.attachments import MAX_FILE_BYTES
from kiro_mcp.wire.content import document_text
from kiro_mcp.wire.images import MAX_IMAGE_BYTES, image_from_bytes, image_from_url

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
