"""The folder of a capture: its files, limits and manifest, and how it is read again.

The file names are those of kiro-gateway, whose folders can be read, too. The names of the files of
a call's second request end in `-2`, and so on::

    request_body.json               the arguments of the MCP client
    kiro_request_body.json          the request to the service
    response_stream_raw.bin         the bytes of the response, redacted
    response_stream_raw.txt         the same, one frame per line
    response_stream_modified.txt    the reply that was read from them
    app_logs.txt                    the log lines of the call
    error_info.json                 why the call failed or is incomplete
    capture.json                    the manifest: versions, times, headers, how replies were read
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.files import read_regular_file
from kiro_mcp.wire.eventstream import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES
from kiro_mcp.wire.reply import ThinkingHandling

REQUEST: Final = "request_body.json"
KIRO_REQUEST: Final = "kiro_request_body.json"
RAW: Final = "response_stream_raw.bin"
FRAMES: Final = "response_stream_raw.txt"
REPLY: Final = "response_stream_modified.txt"
LOGS: Final = "app_logs.txt"
ERROR: Final = "error_info.json"
MANIFEST: Final = "capture.json"
FILES: Final = (REQUEST, KIRO_REQUEST, RAW, FRAMES, REPLY, LOGS, ERROR, MANIFEST)

REPLY_HEADING: Final = "# What kiro-mcp made of it"
FRAMES_HEADING: Final = "# Frames: offset, kind, payload"
"""The first lines of our files. Files of the same names from other programs begin otherwise."""

FORMAT = 1
"""The version of the manifest. A change that older programs would misread increases it."""
MAX_CAPTURES: Final = 50
"""How many folders are kept; the oldest are removed first."""
MAX_EXCHANGES: Final = 20
"""How many requests of one call are written."""
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
"""The largest file; a longer one is cut. A long answer with its frames has about 2 MiB."""
MAX_CALL_BYTES: Final = 24 * 1024 * 1024
"""The limit for all files of one call together."""
MAX_READ_BYTES: Final = 64 * 1024 * 1024
"""The largest file that is read. Another program may have written it, without our limits."""

FOLDER_NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}")
"""The time at which the call began, and an id."""

# --- the manifest -------------------------------------------------------------------------

Outcome = Literal["running", "completed", "truncated", "failed", "cancelled"]
"""How a captured call ended. `running` also means that the process was killed."""

_Count = Annotated[int, Field(ge=0)]


class ToolFacts(BaseModel):
    """A tool that the caller offered."""

    name: str
    input_schema: dict[str, Any] = {}


class ReadingFacts(BaseModel):
    """How a response was read (`ReplyOptions`); a replay reads it the same way."""

    prompt_characters: _Count = 0
    context_window_tokens: _Count = 0
    thinking: ThinkingHandling = "separate"
    tools: list[ToolFacts] = []
    caller_names: dict[str, str] = {}
    property_names: dict[str, dict[str, str]] = {}
    reads_text_calls: bool = False
    max_payload_bytes: Annotated[int, Field(gt=0)] = MAX_PAYLOAD_BYTES
    max_headers_bytes: Annotated[int, Field(gt=0)] = MAX_HEADERS_BYTES


class ErrorFacts(BaseModel):
    """An error as the caller got it."""

    code: str
    message: str
    next_step: str = ""


class ExchangeFacts(BaseModel):
    """One request and its response. Times are seconds since the call began."""

    number: Annotated[int, Field(ge=1)] = 1
    """Counts the requests of the call; the files of request 2 end in `-2`."""
    method: str = "POST"
    url: str = ""
    request_headers: dict[str, str] = {}
    is_prompt: bool = True
    """Whether it is a prompt, and not a request that prepares one."""
    sent_after_seconds: float = 0.0
    status: int | None = None
    """The HTTP status; None if there was no response."""
    response_headers: dict[str, str] = {}
    answered_after_seconds: float | None = None
    first_bytes_after_seconds: float | None = None
    last_bytes_after_seconds: float | None = None
    received_bytes: _Count = 0
    is_whole: bool = True
    """Whether the file holds all of the received bytes."""
    reading: ReadingFacts | None = None
    """None if the response was not read as an answer."""
    fault: ErrorFacts | None = None
    """The external reason that ended the answer, such as a broken connection."""
    error: ErrorFacts | None = None
    """Why the exchange failed."""
    tool_use_ids: list[str] = []
    """The ids of the reply's tool uses; kiro-mcp may have created some of them."""


class Manifest(BaseModel):
    """The description of a capture: the file `capture.json`."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    kiro_mcp: str = ""
    """The version that wrote it."""
    python: str = ""
    platform: str = ""
    began_at: str = ""
    seconds: float | None = None
    """How long the call took; None while it runs."""
    outcome: Outcome = "running"
    exchanges: Annotated[list[ExchangeFacts], Field(max_length=MAX_EXCHANGES)] = []
    unkept_exchanges: _Count = 0
    """The number of exchanges past the limit, which are not in the capture."""
    cut_files: list[str] = []
    """The files that were cut at a limit."""


# --- reading ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request of a captured call and the response to it."""

    facts: ExchangeFacts
    raw: bytes
    """The body of the response."""
    recorded: str | None
    """The reply that was read when it was captured; None if another program made the capture."""

    @property
    def is_answer(self) -> bool:
        """Whether it is, or should have been, an answer to a prompt."""
        return self.facts.is_prompt and self.facts.status is not None


def numbered(name: str, number: int) -> str:
    """Return a file's name for the given request of a call, counted from 1."""
    stem, _, suffix = name.rpartition(".")
    return name if number == 1 else f"{stem}-{number}.{suffix}"


def read_capture(folder: Path) -> list[Exchange]:
    """Return the requests of a captured call, in order, each with its response.

    The capture is one of kiro-mcp or of kiro-gateway.

    Raises:
        InvalidRequest: The folder is not a capture, or it cannot be read.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise _unusable(folder, what, "Give the folder of one captured call.")
    manifest = folder / MANIFEST
    try:
        if manifest.exists():
            facts = Manifest.model_validate_json(_read(manifest)).exchanges
        elif (folder / RAW).exists() or (folder / FRAMES).exists():
            facts = [ExchangeFacts(status=200, reading=ReadingFacts())]
        else:
            found = sorted(one.name for one in folder.iterdir() if FOLDER_NAME.fullmatch(one.name))
            latest = f"the latest one here is {found[-1]}" if found else ""
            raise _unusable(
                folder,
                f"is not a capture: it has neither {MANIFEST} nor {RAW}",
                "Give the folder of one call;"
                f" {latest or 'KIRO_MCP_DEBUG_MODE=all writes such folders'}.",
            )
        return [_read_exchange(folder, one) for one in facts]
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise _unusable(manifest, f"cannot be used: {where}: {fault['msg']}", "") from None
    except OSError as error:
        raise _unusable(folder, f"cannot be read: {error}", "Check its permissions.") from error


def _read_exchange(folder: Path, facts: ExchangeFacts) -> Exchange:
    raw, frames, reply = (
        _read(path) if (path := folder / numbered(name, facts.number)).exists() else None
        for name in (RAW, FRAMES, REPLY)
    )
    # kiro-gateway writes the bytes to the file in which we write the frames as text.
    if raw is None and frames is not None and not frames.startswith(FRAMES_HEADING.encode()):
        raw = frames
    recorded = (reply or b"").decode(errors="replace")
    return Exchange(
        facts=facts,
        raw=raw or b"",
        recorded=recorded if recorded.startswith(REPLY_HEADING) else None,
    )


def _read(path: Path) -> bytes:
    data = read_regular_file(path, MAX_READ_BYTES + 1)
    if len(data) > MAX_READ_BYTES:
        next_step = "Check that it belongs to a capture."
        raise _unusable(path, f"is larger than {MAX_READ_BYTES} bytes", next_step)
    return data


def _unusable(path: Path, what: str, next_step: str) -> InvalidRequest:
    return InvalidRequest(f"{str(path)!r} {what}.", next_step=next_step)
