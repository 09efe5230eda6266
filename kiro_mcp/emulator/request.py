"""The body of a prompt: the structures of the service's published request model.

The structures check each value by itself: its type, its form, the values of an enum. The rules in
`kiro_mcp.emulator.rules` compare values with each other, with the catalogue and with the caller.
Source of truth: the service's published request model and limits.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from kiro_mcp.emulator.catalogue import Model

MAX_DESCRIPTION_BYTES: Final = 10_240
"""The longest description of a tool, in UTF-8."""

MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024
"""The largest image, decoded."""


class WireForm(StrEnum):
    """The form of the HTTP request of a prompt, which decides what its body may contain."""

    REST = "REST"
    RPC_GENERATE = "GenerateAssistantResponse"
    RPC_SEND = "SendMessage"
    KAS = "Kiro's own"


def describe_errors(error: ValidationError) -> Iterator[tuple[tuple[int | str, ...], str, str]]:
    """Yield each error of a validation: its location, also as a text such as `.a[0].b`, and why."""
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        location = "".join(f"[{it}]" if isinstance(it, int) else f".{it}" for it in found["loc"])
        yield found["loc"], location, found["msg"].removeprefix("Value error, ")


# --- values


def _check_description(value: str) -> str:
    if len(value.encode()) > MAX_DESCRIPTION_BYTES:
        raise ValueError("the description is too long")
    return value


def _check_schema(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type") != "object":
        raise ValueError("the root is not an object")
    if found := {"oneOf", "anyOf", "allOf"} & value.keys():
        raise ValueError(f"{', '.join(found)} at the root")
    return value


def _check_base64(value: str) -> str:
    if not b64decode(value, validate=True):
        raise ValueError("must not be empty")
    return value


def _check_image(value: str) -> str:
    if len(value) // 4 * 3 - value.count("=", -2) > MAX_IMAGE_BYTES:
        raise ValueError("the image is too large")
    return value


_Label: TypeAlias = Annotated[str, StringConstraints(pattern=r"\S")]
_Base64: TypeAlias = Annotated[str, AfterValidator(_check_base64)]
_Image: TypeAlias = Annotated[_Base64, AfterValidator(_check_image)]
_ToolName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
_ToolUseId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_UUID: Final = "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_Uuid: TypeAlias = Annotated[str, StringConstraints(pattern=f"^{_UUID}$")]
_ConversationId: TypeAlias = Annotated[str, StringConstraints(pattern=f"^(sess_)?{_UUID}$")]
_DocumentName: TypeAlias = Annotated[
    str,
    StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_()\[\]-]+( [A-Za-z0-9_()\[\]-]+)*$"),
]
_DocumentFormat: TypeAlias = Literal[
    "csv", "doc", "docx", "html", "md", "pdf", "txt", "xls", "xlsx"
]
# fmt: off
_Origin: TypeAlias = Literal[
    "AI_EDITOR", "CHATBOT", "CLI", "CONSOLE", "DOCUMENTATION", "GITLAB", "IDE", "INLINE_CHAT",
    "KIRO_CLI", "MARKETING", "MD", "MD_CE", "MD_IDE", "MOBILE", "OPENSEARCH_DASHBOARD",
    "Q_DEV_BEXT", "SAGE_MAKER", "SERVICE_INTERNAL", "SM_AI_STUDIO_IDE", "UNIFIED_SEARCH", "UNKNOWN",
]
# fmt: on


# --- structures


class _Structure(BaseModel):
    """A JSON object without unknown members. Values of another type are not converted."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class _Union(_Structure):
    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("must have exactly one member")
        return self


class _CachePoint(_Structure):
    type: Literal["default"]


class _InputSchema(_Structure):
    document: Annotated[dict[str, Any], AfterValidator(_check_schema)] = Field(alias="json")


class ToolSpec(_Structure):
    """A declared tool."""

    name: _ToolName
    description: Annotated[_Label, AfterValidator(_check_description)]
    input_schema: _InputSchema


class _Tool(_Structure):
    tool_specification: ToolSpec  # a cache point in its place was refused


class _ResultContent(_Union):
    text: str | None = None
    value: Any = Field(default=None, alias="json")


class _ToolResult(_Structure):
    tool_use_id: _ToolUseId
    status: Literal["success", "error"] = "success"
    content: list[_ResultContent]
    is_error: bool = False  # undeclared, but sent by clients and accepted


class _AdditionalContext(_Structure):
    name: _Label
    description: _Label
    inner_context: str = ""


class _UserContext(_Structure):
    tool_results: list[_ToolResult] = []
    tools: list[_Tool] = []
    additional_context: list[_AdditionalContext] = []
    editor_state: dict[str, Any] = {}
    shell_state: dict[str, Any] = {}
    git_state: dict[str, Any] = {}
    env_state: dict[str, Any] = {}
    app_studio_context: dict[str, Any] = {}
    diagnostic: dict[str, Any] = {}
    console_state: dict[str, Any] = {}
    user_settings: dict[str, Any] = {}


class _ImageSource(_Structure):
    data: _Image = Field(alias="bytes")


class Image(_Structure):
    """An image of a user message."""

    format: Literal["gif", "jpeg", "png", "webp"]
    source: _ImageSource


class _DocumentSource(_Structure):
    data: _Base64 = Field(alias="bytes")


class _Document(_Structure):
    name: _DocumentName
    format: _DocumentFormat
    source: _DocumentSource


class UserMessage(_Structure):
    """A message of the user, with the results of tools."""

    content: str
    context: _UserContext = Field(default_factory=_UserContext, alias="userInputMessageContext")
    user_intent: _Label = ""
    origin: _Origin | None = None
    model_id: _Label = "auto"
    images: list[Image] = []
    documents: list[_Document] = []
    cache_point: _CachePoint | None = None
    client_cache_config: dict[str, Any] = {}

    @property
    def answered_ids(self) -> list[str]:
        """The ids of the tool uses whose results it returns."""
        return [result.tool_use_id for result in self.context.tool_results]

    used_ids: ClassVar[Sequence[str]] = ()


class ToolUse(_Structure):
    """A call of a tool by the model."""

    tool_use_id: _ToolUseId
    name: str
    input: dict[str, Any]


class ReasoningText(_Structure):
    """Reasoning as a text, with the signature that it was sent with."""

    text: str
    signature: Any = None


class _Reasoning(_Union):
    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class AssistantMessage(_Structure):
    """An earlier answer of the model."""

    content: str
    message_id: _Label = ""
    tool_uses: list[ToolUse] = []
    references: list[dict[str, Any]] = []
    supplementary_web_links: list[dict[str, Any]] = []
    followup_prompt: dict[str, Any] = {}
    cache_point: _CachePoint | None = None
    reasoning_content: _Reasoning | None = None

    @property
    def used_ids(self) -> list[str]:
        """The ids of its tool uses."""
        return [use.tool_use_id for use in self.tool_uses]

    answered_ids: ClassVar[Sequence[str]] = ()


class _ChatMessage(_Union):
    user_input_message: UserMessage | None = None
    assistant_response_message: AssistantMessage | None = None


class _CurrentMessage(_Structure):
    user_input_message: UserMessage


class _ConversationState(_Structure):
    chat_trigger_type: Literal["MANUAL", "DIAGNOSTIC", "INLINE_CHAT"]
    current_message: _CurrentMessage
    conversation_id: _ConversationId = ""
    history: list[_ChatMessage] = []
    workspace_id: _Label = ""
    customization_arn: _Label = ""
    agent_continuation_id: _Uuid = ""
    agent_task_type: Literal["vibe", "spectask"] = "vibe"


class Request(_Structure):
    """The body of a prompt, with the members that all forms have."""

    conversation_state: _ConversationState
    profile_arn: _Label = ""


class RestRequest(Request):
    """The body in the REST form. Its agent mode is a header."""

    additional_model_request_fields: dict[str, Any] | None = None


class _RpcRequest(RestRequest):
    agent_mode: _Label = "vibe"


class _KasRequest(RestRequest):
    agent_mode: _Label
    root_conversation_id: _ConversationId


class _SendRequest(Request):
    source: _Label = ""
    dry_run: bool = False


REQUESTS: Final[Mapping[WireForm, type[Request]]] = {
    WireForm.REST: RestRequest,
    WireForm.RPC_GENERATE: _RpcRequest,
    WireForm.RPC_SEND: _SendRequest,
    WireForm.KAS: _KasRequest,
}


class Call:
    """A prompt, and the conditions that it is checked under."""

    def __init__(self, request: Request, form: WireForm, catalogue: Sequence[Model]) -> None:
        state = request.conversation_state
        self.request = request
        self.form = form
        self.current = state.current_message.user_input_message
        """The message to be answered."""
        wanted = self.current.model_id
        self.model = next((model for model in catalogue if model["modelId"] == wanted), None)
        """Its model in the catalogue; None if that has no such model."""
        self.history = [
            (f"history[{index}]", message)
            for index, one in enumerate(state.history)
            if (message := one.user_input_message or one.assistant_response_message)
        ]
        """The messages before the current one, each with its location."""
        self.messages = [*self.history, ("currentMessage", self.current)]
        """All messages in order, each with its location."""
        users = [one for _, one in self.messages if isinstance(one, UserMessage)]
        self.images = [image for user in users for image in user.images]
        """All images, also those of the history."""
        self.tools = [tool.tool_specification for tool in self.current.context.tools]
        """The tools that are declared with the current message."""
