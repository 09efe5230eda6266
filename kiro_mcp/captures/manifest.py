"""What a capture says about itself, its file `capture.json`: written, and read from strangers."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from kiro_mcp.captures import Outcome
from kiro_mcp.wire.eventstream import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES
from kiro_mcp.wire.reply import ThinkingHandling

FORMAT = 1
"""Counts the changes of this file that older programs would misread."""

MAX_EXCHANGES = 20
"""Of how many requests of one call there are files."""

_Count = Annotated[int, Field(ge=0)]


class _Facts(BaseModel):
    model_config = ConfigDict(validate_assignment=True)


class ToolFacts(_Facts):
    """A tool that the caller offered."""

    name: str
    input_schema: dict[str, Any] = {}


class ReadingFacts(_Facts):
    """How an answer was read; its replay is read so, too."""

    prompt_characters: _Count = 0
    context_window_tokens: _Count = 0
    thinking: ThinkingHandling = "separate"
    tools: list[ToolFacts] = []
    caller_names: dict[str, str] = {}
    property_names: dict[str, dict[str, str]] = {}
    reads_text_calls: bool = False
    max_payload_bytes: Annotated[int, Field(gt=0)] = MAX_PAYLOAD_BYTES
    max_headers_bytes: Annotated[int, Field(gt=0)] = MAX_HEADERS_BYTES

    @property
    def limits(self) -> dict[str, int]:
        """How large a frame may be."""
        return {
            "max_payload_bytes": self.max_payload_bytes,
            "max_headers_bytes": self.max_headers_bytes,
        }


class ErrorFacts(_Facts):
    """An error, as a caller met it."""

    code: str
    message: str
    next_step: str = ""


class ExchangeFacts(_Facts):
    """One request, and the answer to it."""

    number: Annotated[int, Field(ge=1)] = 1
    """Counts the requests of the call; the files of the second one end in `-2`."""
    method: str = "POST"
    url: str = ""
    request_headers: dict[str, str] = {}
    is_prompt: bool = True
    """Whether it asked for an answer, and not for something needed before that."""
    sent_after_seconds: float = 0.0
    """From the beginning of the call, as are all of these."""
    status: int | None = None
    """The HTTP status; None where there was no answer."""
    response_headers: dict[str, str] = {}
    answered_after_seconds: float | None = None
    first_bytes_after_seconds: float | None = None
    last_bytes_after_seconds: float | None = None
    received_bytes: _Count = 0
    is_whole: bool = True
    """Whether all of the received bytes are in the file, and not only the first of them."""
    reading: ReadingFacts | None = None
    """None where nothing was read as an answer."""
    fault: ErrorFacts | None = None
    """What ended the answer from outside, such as a broken connection."""
    error: ErrorFacts | None = None
    """Why the exchange came to nothing."""
    tool_use_ids: list[str] = []
    """The ids of the answer's tool uses, some of which are made by us."""


class Manifest(_Facts):
    """A whole capture."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    kiro_mcp: str = ""
    """The version that wrote it."""
    python: str = ""
    platform: str = ""
    began_at: str = ""
    seconds: float | None = None
    """How long the call took; None while it goes on."""
    outcome: Outcome = "running"
    exchanges: Annotated[list[ExchangeFacts], Field(max_length=MAX_EXCHANGES)] = []
    unkept_exchanges: _Count = 0
    """How many more there were, past the limit."""
    cut_files: list[str] = []
    """The files that reached a limit, and end there."""
