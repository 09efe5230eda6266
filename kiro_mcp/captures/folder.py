"""The folder of a capture: its files, their limits, and how it is read again.

The names are those that users of kiro-gateway know, whose folders can be read, too. The files
of a call's further requests (a retry, a second turn) end in `-2`, `-3` and so on::

    request_body.json               what the MCP client asked: the arguments
    kiro_request_body.json          what was sent to the service
    response_stream_raw.bin         what was received, its secrets masked
    response_stream_raw.txt         the same, a frame a line
    response_stream_modified.txt    what was made of it
    app_logs.txt                    our log lines of the call
    error_info.json                 why it failed or is incomplete
    capture.json                    versions, times, heads, and how the answers were read
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from kiro_mcp.captures.manifest import ExchangeFacts, Manifest, ReadingFacts
from kiro_mcp.captures.rendering import FRAMES_HEADING, REPLY_HEADING
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.regular_files import read_regular_file

REQUEST: Final = "request_body.json"
KIRO_REQUEST: Final = "kiro_request_body.json"
RAW: Final = "response_stream_raw.bin"
FRAMES: Final = "response_stream_raw.txt"
REPLY: Final = "response_stream_modified.txt"
LOGS: Final = "app_logs.txt"
ERROR: Final = "error_info.json"
MANIFEST: Final = "capture.json"

MAX_CAPTURES: Final = 50
"""How many folders are kept; the oldest go first."""
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
"""How large a file may be; it is cut there. A long answer with its frames has about 2 MiB."""
MAX_CALL_BYTES: Final = 24 * 1024 * 1024
"""How large the files of one call may be together."""
MAX_READ_BYTES: Final = 64 * 1024 * 1024
"""How much of a file is read: others may have written it."""

_NUMBERED: Final = re.compile(r"(?P<stem>[a-z_]+)(?:-\d{1,3})?(?P<suffix>\.[a-z]+)")
_FOLDER: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}")
_FILES: Final = (REQUEST, KIRO_REQUEST, RAW, FRAMES, REPLY, LOGS, ERROR, MANIFEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request of a captured call, and the answer to it."""

    facts: ExchangeFacts
    raw: bytes
    """The answer's body."""
    recorded: str | None
    """What was made of it then; None where we did not write that down."""

    @property
    def is_answer(self) -> bool:
        """Whether it is, or should have been, an answer to a prompt."""
        return self.facts.is_prompt and self.facts.status is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A captured call."""

    name: str
    exchanges: tuple[Exchange, ...]
    """In the order in which they were sent."""


def numbered(name: str, number: int) -> str:
    """Return the name of a file that belongs to the how manyth request of a call."""
    stem, _, suffix = name.rpartition(".")
    return name if number == 1 else f"{stem}-{number}.{suffix}"


def is_capture_file(name: str) -> bool:
    """Whether a file is named as those of a capture are."""
    match = _NUMBERED.fullmatch(name)
    return match is not None and f"{match['stem']}{match['suffix']}" in _FILES


def is_capture_folder(name: str) -> bool:
    """Whether a folder is named as we name those of captures."""
    return _FOLDER.fullmatch(name) is not None


def read_capture(folder: Path) -> Capture:
    """Read a capture, one of ours or of kiro-gateway.

    Raises:
        InvalidRequest: There is none, or it cannot be read.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise _unusable(folder, what, "Give the folder of one captured call.")
    try:
        exchanges = _exchanges(folder)
    except OSError as error:
        raise _unusable(folder, f"cannot be read: {error}", "Check its permissions.") from error
    if exchanges is None:
        raise _unusable(
            folder,
            f"is no capture: it has neither {MANIFEST} nor {RAW}",
            f"Give the folder of one call; {_some_captures(folder)}",
        )
    return Capture(name=folder.resolve().name, exchanges=exchanges)


def _exchanges(folder: Path) -> tuple[Exchange, ...] | None:
    manifest = _manifest(folder)
    if manifest is not None:
        return tuple(_exchange(folder, facts) for facts in manifest.exchanges)
    if (folder / RAW).exists() or (folder / FRAMES).exists():
        facts = ExchangeFacts(status=200, reading=ReadingFacts())
        return (_exchange(folder, facts),)
    return None


def _manifest(folder: Path) -> Manifest | None:
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest.model_validate_json(_bytes(path))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"])) or "it"
        raise _unusable(path, f"cannot be used: {place}: {fault['msg']}", "") from None


def _exchange(folder: Path, facts: ExchangeFacts) -> Exchange:
    reply = folder / numbered(REPLY, facts.number)
    recorded = _bytes(reply).decode(errors="replace") if reply.exists() else ""
    return Exchange(
        facts=facts,
        raw=_raw(folder, facts.number),
        recorded=recorded if recorded.startswith(REPLY_HEADING) else None,
    )


def _raw(folder: Path, number: int) -> bytes:
    path = folder / numbered(RAW, number)
    if path.exists():
        return _bytes(path)
    # kiro-gateway keeps the bytes themselves in the file that is our rendering of them.
    path = folder / numbered(FRAMES, number)
    data = _bytes(path) if path.exists() else b""
    return b"" if data.startswith(FRAMES_HEADING.encode()) else data


def _bytes(path: Path) -> bytes:
    data = read_regular_file(path, MAX_READ_BYTES + 1)
    if len(data) > MAX_READ_BYTES:
        raise _unusable(path, f"is larger than {MAX_READ_BYTES} bytes", "Is it of a capture?")
    return data


def _some_captures(folder: Path) -> str:
    found = sorted(one.name for one in folder.iterdir() if is_capture_folder(one.name))
    return f"the latest in it is {found[-1]}." if found else "KIRO_MCP_DEBUG_MODE=all makes them."


def _unusable(path: Path, what: str, next_step: str) -> InvalidRequest:
    return InvalidRequest(f"{str(path)!r} {what}.", next_step=next_step)
