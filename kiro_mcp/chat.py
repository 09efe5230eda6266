"""The values that cross layers: requests, messages, models, replies and tokens. All are frozen.

`kiro_mcp.wire.request` turns a `ChatRequest` into the service's JSON, and `kiro_mcp.wire.reply`
makes deltas and a `Reply` of its answer. The service's member names (`toolUseId`) stay there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from kiro_mcp.errors import ErrorCode, InvalidRequest, KiroError
from kiro_mcp.redaction import redact_values, remember_secret

Role = Literal["user", "assistant"]

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

# --- parts of a message, in either direction ----------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A run of text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingPart:
    """A block of the model's reasoning."""

    text: str
    signature: str = ""
    """The service needs it to accept the block in a later turn; "" if it sent none."""
    redacted: str = ""
    """Reasoning that the service sent encrypted, as base64; "" for readable reasoning."""
    is_unclosed: bool = False
    """Whether the answer ended inside a thinking tag that was never closed."""


ToolUseState = Literal["complete", "truncated", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A tool that the model asks its caller to run. This package never runs it."""

    id: str
    name: str
    arguments: JsonObject
    """The parsed arguments; {} unless `state` is `complete`."""
    state: ToolUseState = "complete"
    """`truncated`: the arguments were cut off. `invalid`: they are not a JSON object."""
    raw: str = ""
    """The arguments as received; "" if `state` is `complete`."""
    text: str = field(default="", compare=False, repr=False)
    """The arguments as the model wrote them; "" if they were repaired, renamed or not JSON."""
    is_repaired: bool = False
    """Whether the JSON needed a lossless repair: raw control characters, trailing commas."""
    schema_errors: tuple[str, ...] = ()
    """How the arguments violate the tool's own schema, one sentence each."""
    is_unchecked: bool = False
    """Whether they were not checked against it, because that could take long."""


ImageFormat = Literal["gif", "jpeg", "png", "webp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """An image for the model."""

    format: ImageFormat
    data: str = field(repr=False)
    """The bytes as base64, without line breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The result of a caller's tool."""

    id: str
    """The id of its `ToolUse`."""
    text: str = ""
    is_error: bool = False
    data: JsonObject | None = None
    """Structured content, beside the text or instead of it."""
    images: tuple[ImagePart, ...] = ()
    name: str = ""
    """The tool's name; a result without an id is matched to its use by it."""


Part: TypeAlias = TextPart | ThinkingPart | ToolUse | ToolResult | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: Role
    parts: tuple[Part, ...]
    is_truncated: bool = False
    """Whether it is an answer that was cut off; the next turn then tells the model so."""
    is_refusal: bool = False
    """Whether it is a refusal; such a turn is not sent again."""
    model: str = ""
    """The id of the model that gave the answer; "" if it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """The declaration of a tool that the model may ask for."""

    name: str
    description: str
    input_schema: JsonObject


# --- the models ---------------------------------------------------------------------------

Effort: TypeAlias = str
"""How hard a model thinks: `off`, or a word that its published schema lists, such as `low`.

"" leaves it to the service. Not a `Literal`: the service may list words that this version does
not know. `kiro_mcp.wire.models.read_effort` reads a caller's word.
"""

ThinkingSupport = Literal["none", "tags", "native"]
"""How a model is asked to think: not at all, by tags in the prompt, or by a request field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFields:
    """The extra fields that a request to a model may carry, as its published schema says."""

    effort_path: tuple[str, ...] = ()
    """The members that lead to the effort, such as `output_config`, `effort`; () for none."""
    efforts: tuple[Effort, ...] = ()
    """The efforts that it takes, in the service's words: from `none` to the highest, then
    those that this version does not know."""
    default_effort: Effort = ""
    """The effort of a request that names none; "" if the schema does not say."""
    thinking_types: tuple[str, ...] = ()
    """The values that `thinking.type` takes; () if the schema has no such member."""
    thinking_displays: tuple[str, ...] = ()
    """The values that `thinking.display` takes."""
    max_tokens: tuple[int, int | None] | None = None
    """The least and the most that `max_tokens` takes; None if the schema has no such member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice:
    """A vendor's list price in US dollars, for orientation. Kiro bills credits."""

    input_per_million: float
    output_per_million: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HigherRate:
    """The rate of a whole request with a long prompt."""

    above_tokens: int
    rate_multiplier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The known details of a model; None for what is not known."""

    id: str
    name: str
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    """The most tokens that a prompt may have."""
    max_output_tokens: int | None = None
    rate_multiplier: float | None = None
    """Credits per unit of work, relative to `auto`."""
    higher_rate: HigherRate | None = None
    """The rate for long prompts, if it differs."""
    list_price: ListPrice | None = None
    input_types: tuple[str, ...] = ("TEXT",)
    """What it reads, `TEXT` and maybe `IMAGE`; () if that is not known."""
    thinking: ThinkingSupport = "none"
    effort_levels: tuple[Effort, ...] = ()
    fields: ModelFields | None = None
    """The extra fields of a request to it; None if it takes none."""
    refusal_fallbacks: tuple[str, ...] = ()
    """The ids of the models to ask if this one refuses, in the service's order."""


# --- the request --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A question to a model."""

    messages: tuple[Message, ...]
    """The turns, oldest first; the last one is the user's."""
    model: str = "auto"
    """A model id of the service."""
    model_info: ModelInfo | None = None
    """The known details of the model; None for those of the built-in list."""
    conversation_id: str = ""
    """A UUID, or "" for a new one. The same for every turn of a chat lets the service cache."""
    history_head: str = ""
    """For a caller's own history: `kiro_mcp.wire.request` derives the id for the service from this
    digest. "" sends `conversation_id` itself."""
    system: str = ""
    tools: tuple[ToolSpec, ...] = ()
    allows_tools: bool = True
    """Whether the model may ask for tools; if not, earlier tool uses become text."""
    tool_choice: str = ""
    """`required`, or the name of the tool to use; "" leaves that to the model."""
    effort: Effort = ""
    max_tokens: int = 0
    """The longest answer, in tokens; 0 leaves it to the service."""
    output_schema: JsonObject | None = None
    """A JSON Schema that the answer's text must be valid against."""
    writes_in_chunks: bool = False
    """Whether the model is told to write long files in several tool uses."""


# --- what was wrong with a request --------------------------------------------------------
# For the caller to read; no code parses them.


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A change in a request, so that the service takes it."""

    rule: str
    """The name of the step that changed it."""
    detail: str
    """What was changed, and where, as one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in a request that the service refuses."""

    rule: str
    """The name of the rule that it breaks."""
    location: str
    """A path in the caller's arguments (`messages[2].content[0]`) or in the payload."""
    cause: str
    """What is wrong, in words that follow the location."""
    cure: str
    """The next step, as a sentence."""
    code: ErrorCode = "invalid_request"

    def __str__(self) -> str:
        return f"{self.location} {self.cause} ({self.rule})."

    def as_error(self) -> InvalidRequest:
        """Return the error that refuses the request."""
        return InvalidRequest(str(self), next_step=self.cure, code=self.code)


# --- the answer ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer's text. Pieces are appended verbatim, never merged."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """The next piece of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolUseDelta:
    """A tool use whose last fragment has arrived."""

    tool_use: ToolUse


Delta: TypeAlias = TextDelta | ThinkingDelta | ToolUseDelta

StopReason = Literal[
    "end_turn",
    "tool_use",
    "max_tokens",
    "context_window_exceeded",
    "refusal",
    "stop_sequence",
    "truncated",
]
"""Why the model stopped; `truncated` if the stream ended before it said why."""


BYTES_PER_TOKEN: Final = 4
"""For estimates, in UTF-8: about right for English and for Chinese."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer cost."""

    input_tokens: int = 0
    """All tokens of the prompt, cached ones included."""
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    is_estimated: bool = True
    """Whether the token counts are our estimate; the service seldom sends exact ones."""
    context_percent: float | None = None
    """How full the context window is, 0 to 100 and over, as the service says."""
    credits: float | None = None
    """What the service charged, the only figure that is billed; None if it did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeReference:
    """Licensed code that the answer resembles, as the service attributes it."""

    license_name: str = ""
    repository: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLink:
    """A page that the service names beside its answer."""

    url: str
    title: str = ""
    snippet: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error as the service put it, over HTTP or inside an answer's stream.

    `kiro_mcp.client.classify` turns it into the `KiroError` that a caller meets.
    """

    name: str = ""
    """The exception's name without its namespace, such as `ThrottlingException`."""
    reason: str = ""
    """The service's reason, such as `INVALID_MODEL_ID`."""
    message: str = ""
    """The service's words, cut to a length fit for showing."""
    status: int | None = None
    """The HTTP status; None inside a stream."""
    request_id: str | None = None
    retry_after_seconds: float | None = None

    def __post_init__(self) -> None:
        for member in ("name", "reason", "message"):  # It may quote what it was sent.
            object.__setattr__(self, member, redact_values(getattr(self, member)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The service's details of a refusal; "" for each that it leaves out."""

    category: str = ""
    """The kind of content, such as `REASONING_EXTRACTION`."""
    explanation: str = ""
    recommended_model: str = ""
    """The id of a model that may answer instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer, or all that arrived of one."""

    parts: tuple[TextPart | ThinkingPart | ToolUse, ...]
    """Text, thinking and tool uses in the order in which the model gave them."""
    stop_reason: StopReason
    raw_stop_reason: str = ""
    """The service's own word; "" if it sent none."""
    refusal: Refusal | None = None
    """The details of a refusal, if the service sent any."""
    truncated: bool = False
    """Whether the answer is known to be incomplete."""
    truncation_reason: str = ""
    """Why, as one sentence; "" for a complete answer."""
    fault: Fault | KiroError | None = None
    """What ended the stream early: the service's error, or ours about its bytes."""
    usage: Usage = field(default_factory=Usage)
    model_id: str = ""
    """The service's id of the model; "" if it does not say."""
    references: tuple[CodeReference, ...] = ()
    links: tuple[WebLink, ...] = ()
    warnings: tuple[str, ...] = ()
    """What was repaired or left out of the stream, one sentence each."""
    ignored_events: Mapping[str, int] = field(default_factory=dict[str, int])
    """Events without content for a caller, counted by type."""

    @property
    def text(self) -> str:
        """The answer's text, all of it, without the thinking."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def thinking(self) -> str:
        """The readable reasoning, its blocks joined by a blank line."""
        blocks = [part.text for part in self.parts if isinstance(part, ThinkingPart)]
        return "\n\n".join(block for block in blocks if block)

    @property
    def tool_uses(self) -> tuple[ToolUse, ...]:
        """The tool uses, in the order in which they began."""
        return tuple(part for part in self.parts if isinstance(part, ToolUse))

    @property
    def is_empty(self) -> bool:
        """Whether it has no parts."""
        return not self.parts


# --- the account --------------------------------------------------------------------------

TokenType = Literal["", "API_KEY", "EXTERNAL_IDP", "SSO_OIDC"]
"""The `TokenType` header: it tells the service how to read the bearer; "" sends none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The credential of a request."""

    value: str = field(repr=False)
    """The bearer itself. Never logged, never returned."""
    token_type: TokenType = ""
    profile_arn: str = ""
    """The profile to bill; "" if the request must name none."""
    region: str = "us-east-1"
    """The region of the service's data plane, not that of the sign-in."""
    is_explicit: bool = False
    """Whether the user gave it for this run. Only then may an overridden host receive it."""
    preferred_endpoint: str = ""
    """The endpoint to try first, as its store names it; "" for none."""
    owner: str = field(default="", repr=False, compare=False)
    """A digest that identifies the credential, also after it was renewed; "" if it is not known."""

    def __post_init__(self) -> None:
        remember_secret(self.value)
