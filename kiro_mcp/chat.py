"""The values that cross layers: what is asked, what is answered, and with which token.

All are frozen. `ChatRequest` goes in at `kiro_mcp.wire.request`; deltas and a `Reply`
come out at `kiro_mcp.wire.reply`. The spelling of the wire (`toolUseId`) stays there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import is_
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
    """What the service needs to take the block back in a later turn; "" where it sent none."""
    redacted: str = ""
    """Reasoning that the service sent encrypted, as base64; "" for readable reasoning."""
    is_unclosed: bool = False
    """Whether the answer ended inside a thinking tag that was never closed."""


ToolUseState = Literal["complete", "truncated", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A tool that the model asks its caller to run. Nothing in this package runs it."""

    id: str
    name: str
    arguments: JsonObject
    """The parsed arguments; {} where `state` is not `complete`."""
    state: ToolUseState = "complete"
    """`truncated`: the arguments were cut off. `invalid`: they are not a JSON object."""
    raw: str = ""
    """The arguments as received, only where `state` is not `complete`."""
    text: str = field(default="", compare=False, repr=False)
    """The arguments as the model wrote them; "" if they were repaired, renamed or not JSON."""
    is_repaired: bool = False
    """Whether the JSON needed a lossless repair: raw control characters, trailing commas."""
    schema_errors: tuple[str, ...] = ()
    """Where the arguments break the tool's own schema, one sentence each."""
    is_unchecked: bool = False
    """Whether nobody has looked, because checking by that schema could take long."""


ImageFormat = Literal["gif", "jpeg", "png", "webp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """A picture that the model is to look at."""

    format: ImageFormat
    data: str = field(repr=False)
    """Its bytes as base64, without line breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a caller's tool answered."""

    id: str
    """The id of the `ToolUse` that it answers."""
    text: str = ""
    is_error: bool = False
    data: JsonObject | None = None
    """A structured answer, beside the text or in its place."""
    images: tuple[ImagePart, ...] = ()
    name: str = ""
    """The tool's name, by which a result without an id finds its use."""


Part: TypeAlias = TextPart | ThinkingPart | ToolUse | ToolResult | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: Role
    parts: tuple[Part, ...]
    is_truncated: bool = False
    """Whether it is an answer that was cut off; the turn after it then tells the model so."""
    is_refusal: bool = False
    """Whether it is an answer that the service refused to give; its turn is not sent again."""
    model: str = ""
    """The id of the model that gave the answer; "" where that is not known."""

    def with_parts(self, parts: Iterable[Part]) -> "Message":
        """Return the same turn with other parts; itself where they are the very same ones."""
        given = tuple(parts)
        if len(given) == len(self.parts) and all(map(is_, given, self.parts)):
            return self
        return replace(self, parts=given)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """The declaration of a tool that the model may ask for."""

    name: str
    description: str
    input_schema: JsonObject


# --- the models ---------------------------------------------------------------------------

Effort: TypeAlias = str
"""How hard a model is to think: `off`, or a word that its published schema lists, such as `low`.

"" leaves it to the service. Not a `Literal`: the service may list words that this version does
not know. `kiro_mcp.wire.models.read_effort` reads what a caller writes.
"""

ThinkingSupport = Literal["none", "tags", "native"]
"""How a model is asked to think: not at all, by tags in the prompt, or by a request field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFields:
    """The extra fields that a request to a model may carry, as its published schema says."""

    effort_path: tuple[str, ...] = ()
    """The members that lead to the effort, such as `output_config`, `effort`; () for none."""
    efforts: tuple[Effort, ...] = ()
    """The efforts that it takes, in the service's words: `none` first if it is listed, then from
    the least to the most, then those that this version does not know."""
    default_effort: Effort = ""
    """What the service takes if a request names no effort; "" if the schema does not say."""
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
    """The rate of a request whose prompt is long; it holds for the whole request."""

    above_tokens: int
    rate_multiplier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of a model; None where it is not known."""

    id: str
    name: str
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    """The most tokens that a prompt may have."""
    max_output_tokens: int | None = None
    rate_multiplier: float | None = None
    """Credits per unit of work, relative to `auto`."""
    higher_rate: HigherRate | None = None
    """What long prompts cost instead, where that differs."""
    list_price: ListPrice | None = None
    input_types: tuple[str, ...] = ("TEXT",)
    """What it reads, `TEXT` and maybe `IMAGE`; () where that is not known."""
    thinking: ThinkingSupport = "none"
    effort_levels: tuple[Effort, ...] = ()
    fields: ModelFields | None = None
    """What a request may carry for it; None where it takes no extra fields at all."""
    refusal_fallbacks: tuple[str, ...] = ()
    """The ids of the models to ask if this one refuses, in the service's order."""


# --- the request --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What is asked of the model."""

    messages: tuple[Message, ...]
    """The turns, oldest first; the last one is the user's."""
    model: str = "auto"
    """A model id of the service."""
    model_info: ModelInfo | None = None
    """What is known of the model; None for what the built-in list knows."""
    conversation_id: str = ""
    """A UUID, or "" for a new one. The same for every turn of a chat lets the service cache."""
    history_head: str = ""
    """For a caller's own history: the digest that the id sent to the service is derived from,
    by `kiro_mcp.wire.request`. "" sends `conversation_id` itself."""
    system: str = ""
    tools: tuple[ToolSpec, ...] = ()
    allows_tools: bool = True
    """Whether the model may ask for tools; if not, earlier tool uses become text."""
    tool_choice: str = ""
    """Asks for tool uses: `required`, or the name of one of `tools`; "" for no wish."""
    effort: Effort = ""
    max_tokens: int = 0
    """The longest answer, in tokens; 0 leaves it to the service."""
    output_schema: JsonObject | None = None
    """A JSON Schema that the answer's text must be valid against."""
    writes_in_chunks: bool = False
    """Whether the model is told to write long files in several tool uses."""


# --- what was wrong with a request --------------------------------------------------------
# Facts for whoever made the request: they are shown, never parsed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Something in a request that was changed, so that the service takes it."""

    rule: str
    """The name of the step that changed it."""
    detail: str
    """What it did, and where, as one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in a request that the service refuses."""

    rule: str
    """The name of the rule that it breaks."""
    location: str
    """Where it is: the caller's own (`messages[2].content[0]`) or a path in the payload."""
    cause: str
    """What is wrong there, in words that follow the location."""
    cure: str
    """What to do about it, as a sentence."""
    code: ErrorCode = "invalid_request"

    def __str__(self) -> str:
        return f"{self.location} {self.cause} ({self.rule})."

    def as_error(self) -> InvalidRequest:
        """Return the error that refuses the request for it."""
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
"""Why the model stopped; `truncated` where the stream ended before the model said why."""


BYTES_PER_TOKEN: Final = 4
"""For estimates, in UTF-8: right for English, and, at three bytes a character, for Chinese."""


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
    """What the service charged, the only figure that is billed; None where it did not say."""


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
    """What the service says about an answer that it refused to give; "" for what it leaves out."""

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
    """The service's own word, where it sent one."""
    refusal: Refusal | None = None
    """The details of a refusal, where the service sent any."""
    truncated: bool = False
    """Whether the answer is known to be incomplete."""
    truncation_reason: str = ""
    """Why, as one sentence; "" for a complete answer."""
    fault: Fault | KiroError | None = None
    """What ended the stream early: the service's error, or ours about its bytes."""
    usage: Usage = field(default_factory=Usage)
    model_id: str = ""
    """The model that answered, as the service calls it; "" where it does not say."""
    references: tuple[CodeReference, ...] = ()
    links: tuple[WebLink, ...] = ()
    warnings: tuple[str, ...] = ()
    """What was odd in the stream and mended or left out, one sentence each."""
    ignored_events: Mapping[str, int] = field(default_factory=dict[str, int])
    """Events that carry nothing for a caller, counted by type."""

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
        """Whether there is nothing in it that a caller could use."""
        return not self.parts


# --- the account --------------------------------------------------------------------------

TokenType = Literal["", "API_KEY", "EXTERNAL_IDP", "SSO_OIDC"]
"""The `TokenType` header: it tells the service how to read the bearer; "" sends none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """What a request carries to be let in."""

    value: str = field(repr=False)
    """The bearer itself. Never logged, never returned."""
    token_type: TokenType = ""
    profile_arn: str = ""
    """The profile to bill; "" where the service must be asked without one."""
    region: str = "us-east-1"
    """The region of the service's data plane, not that of the sign-in."""
    is_explicit: bool = False
    """Whether the user gave it for this run. Only then may an overridden host receive it."""
    preferred_endpoint: str = ""
    """The endpoint that its store says to try first, in the store's words; "" for none."""
    owner: str = field(default="", repr=False, compare=False)
    """A digest that stays the same while the credential is renewed, and differs from every other
    credential's; "" where that is not known."""

    def __post_init__(self) -> None:
        remember_secret(self.value)
