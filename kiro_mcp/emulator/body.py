"""The body of a prompt: reads a body of any shape, and checks its shape.

`Call` is a body with the conditions that it is checked under. Its properties read a missing member,
or one of another type, as empty. `misshapen` compares a body with a table of all structures of a
request: a structure maps its members to kinds; `!` marks a required one. A kind is the name of
another structure, `[kind]` for an array, or one of the plain kinds below. A union has exactly one
member. All other requirements of the service are in `kiro_mcp.emulator.rules`. Source of truth:
the service's published request model.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeAlias, cast

from kiro_mcp.emulator.catalogue import Model

USER_MESSAGE: Final = "userInputMessage"
ASSISTANT_MESSAGE: Final = "assistantResponseMessage"


Finding: TypeAlias = tuple[str, str]
"""The location of an error in a body, and its description."""


class WireForm(StrEnum):
    """The form of the HTTP request of a prompt, which decides what its body may contain."""

    REST = "REST"
    RPC_GENERATE = "GenerateAssistantResponse"
    RPC_SEND = "SendMessage"


# --- reading


def members(value: object) -> Mapping[str, object]:
    """Return the members of a JSON object; none for other values."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def items(value: object) -> Sequence[object]:
    """Return the items of a JSON array; none for other values."""
    return cast("list[object]", value) if isinstance(value, list) else []


def text(value: object) -> str:
    """Return a JSON string; "" for other values."""
    return value if isinstance(value, str) else ""


def walk(value: object, where: str) -> Iterator[tuple[str, object]]:
    """Yield `value` and all values inside it, at any depth, each with its path."""
    waiting = [(where, value)]
    while waiting:
        where, current = waiting.pop()
        yield where, current
        waiting += [(f"{where}.{name}", inner) for name, inner in members(current).items()]
        waiting += [(f"{where}[{index}]", inner) for index, inner in enumerate(items(current))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of the conversation."""

    where: str
    """Its path in the body."""
    role: Literal["user", "assistant"]
    message: Mapping[str, object]

    @property
    def content(self) -> str:
        """Its text."""
        return text(self.message.get("content"))

    @property
    def context(self) -> Mapping[str, object]:
        """The tools, tool results and other context of a user message."""
        return members(self.message.get("userInputMessageContext"))

    @property
    def tool_uses(self) -> Sequence[Mapping[str, object]]:
        """The tool uses of an assistant message."""
        return [members(use) for use in items(self.message.get("toolUses"))]

    @property
    def tool_results(self) -> Sequence[Mapping[str, object]]:
        """The tool results of a user message."""
        return [members(result) for result in items(self.context.get("toolResults"))]

    @property
    def images(self) -> Sequence[Mapping[str, object]]:
        """The images of a user message."""
        return [members(image) for image in items(self.message.get("images"))]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The `conversationState` of a body."""

    body: object

    @property
    def state(self) -> Mapping[str, object]:
        """The JSON object of the conversation."""
        return members(members(self.body).get("conversationState"))

    @property
    def current(self) -> Turn:
        """The message to be answered."""
        return _read_turn(self.state.get("currentMessage"), "$.conversationState.currentMessage")

    @property
    def history(self) -> Sequence[Turn]:
        """The messages before it."""
        return [
            _read_turn(message, f"$.conversationState.history[{index}]")
            for index, message in enumerate(items(self.state.get("history")))
        ]

    @property
    def turns(self) -> Sequence[Turn]:
        """All messages, in order."""
        return [*self.history, self.current]

    @property
    def tool_specs(self) -> Sequence[Mapping[str, object]]:
        """The tools declared with the current message."""
        declared = items(self.current.context.get("tools"))
        return [members(members(tool).get("toolSpecification")) for tool in declared]


def _read_turn(value: object, where: str) -> Turn:
    union = members(value)
    if ASSISTANT_MESSAGE in union:
        where = f"{where}.{ASSISTANT_MESSAGE}"
        return Turn(where=where, role="assistant", message=members(union[ASSISTANT_MESSAGE]))
    where = f"{where}.{USER_MESSAGE}"
    return Turn(where=where, role="user", message=members(union.get(USER_MESSAGE)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A prompt, as the rules see it."""

    body: object
    form: WireForm
    catalogue: Sequence[Model]
    requires_profile_arn: bool

    @property
    def conversation(self) -> Conversation:
        """Its messages."""
        return Conversation(self.body)

    @property
    def members(self) -> Mapping[str, object]:
        """The members of the body."""
        return members(self.body)

    @property
    def model(self) -> Model | None:
        """The catalogue's entry for its model, or for `auto` if it names none."""
        named = text(self.conversation.current.message.get("modelId")) or "auto"
        return next((model for model in self.catalogue if model["modelId"] == named), None)


# --- shapes

_REQUEST: Final = {"conversationState!": "conversationState", "profileArn": "label"}
_FIELDS: Final = {"additionalModelRequestFields": "object"}

REQUESTS: Final[Mapping[WireForm, Mapping[str, str]]] = {
    WireForm.REST: {**_REQUEST, **_FIELDS},  # its agent mode is a header
    WireForm.RPC_GENERATE: {**_REQUEST, **_FIELDS, "agentMode": "label"},
    WireForm.RPC_SEND: {**_REQUEST, "source": "label", "dryRun": "boolean"},
}

_STRUCTURES: Final[Mapping[str, Mapping[str, str]]] = {
    "conversationState": {
        "chatTriggerType!": "label",
        "currentMessage!": "currentMessage",
        "conversationId": "string",
        "history": "[chatMessage]",
        "workspaceId": "label",
        "customizationArn": "label",
        "agentContinuationId": "uuid",
        "agentTaskType": "label",
    },
    "currentMessage": {"userInputMessage!": "userInputMessage"},
    "userInputMessage": {
        "content!": "string",
        "userInputMessageContext": "userInputMessageContext",
        "userIntent": "label",
        "origin": "label",
        "modelId": "label",
        "images": "[image]",
        "documents": "[document]",
        "cachePoint": "cachePoint",
        "clientCacheConfig": "object",
    },
    "userInputMessageContext": {
        "editorState": "object",
        "shellState": "object",
        "gitState": "object",
        "envState": "object",
        "appStudioContext": "object",
        "diagnostic": "object",
        "consoleState": "object",
        "userSettings": "object",
        "additionalContext": "[additionalContext]",
        "toolResults": "[toolResult]",
        "tools": "[tool]",
    },
    "additionalContext": {"name!": "label", "description!": "label", "innerContext": "string"},
    "tool": {"toolSpecification!": "toolSpecification"},
    "toolSpecification": {
        "name!": "string",
        "description!": "string",
        "inputSchema!": "inputSchema",
    },
    "inputSchema": {"json!": "any"},
    "toolResult": {
        "toolUseId!": "string",
        "status": "resultStatus",
        "content!": "[toolResultContent]",
        "isError": "boolean",  # undeclared, but sent by clients and taken
    },
    "assistantResponseMessage": {
        "content!": "string",
        "messageId": "label",
        "toolUses": "[toolUse]",
        "references": "[object]",
        "supplementaryWebLinks": "[object]",
        "followupPrompt": "object",
        "cachePoint": "cachePoint",
        "reasoningContent": "any",
    },
    "toolUse": {"toolUseId!": "string", "name!": "string", "input!": "any"},
    "cachePoint": {"type!": "cachePointType"},
    "image": {"format!": "string", "source!": "source"},
    "document": {"name!": "string", "format!": "string", "source!": "source"},
    "source": {"bytes!": "base64"},
}

_UNIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "chatMessage": {
        "userInputMessage": "userInputMessage",
        "assistantResponseMessage": "assistantResponseMessage",
    },
    "toolResultContent": {"text": "string", "json": "any"},
}

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_uuid(value: object) -> bool:
    """Whether it is a UUID as text."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def _is_base64(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(b64decode(value, validate=True))
    except (Base64Error, ValueError):
        return False


_KINDS: Final[Mapping[str, Callable[[object], bool]]] = {
    "any": lambda _value: True,
    "base64": _is_base64,
    "boolean": lambda value: isinstance(value, bool),
    "cachePointType": lambda value: value == "default",
    "label": lambda value: isinstance(value, str) and value.strip() != "",
    "object": lambda value: isinstance(value, dict),
    "resultStatus": lambda value: value in ("success", "error"),
    "string": lambda value: isinstance(value, str),
    "uuid": is_uuid,
}


def misshapen(body: object, form: WireForm) -> Iterator[Finding]:
    """Yield each member that is unknown in this form of a call, or has the wrong shape."""
    return _in_structure(body, REQUESTS[form], "$")


def _in_value(value: object, kind: str, where: str) -> Iterator[Finding]:
    if kind.startswith("["):
        yield from _in_array(value, kind[1:-1], where)
    elif kind in _STRUCTURES:
        yield from _in_structure(value, _STRUCTURES[kind], where)
    elif kind in _UNIONS:
        if len(members(value)) != 1:
            yield where, f"a {kind} has exactly one member"
        yield from _in_structure(value, _UNIONS[kind], where)
    elif not _KINDS[kind](value):
        yield where, f"is not of the kind {kind}"


def _in_array(value: object, kind: str, where: str) -> Iterator[Finding]:
    array = items(value)
    if not isinstance(value, list):
        yield where, "is not an array"
    for index, item in enumerate(array):
        yield from _in_value(item, kind, f"{where}[{index}]")


def _in_structure(value: object, structure: Mapping[str, str], where: str) -> Iterator[Finding]:
    present = members(value)
    if not isinstance(value, dict):
        yield where, "is not an object"
        return
    kinds = {name.rstrip("!"): kind for name, kind in structure.items()}
    for name in structure:
        if name.endswith("!") and name.rstrip("!") not in present:
            yield where, f"lacks {name.rstrip('!')}"
    for name, member in present.items():
        if name in kinds:
            yield from _in_value(member, kinds[name], f"{where}.{name}")
        else:
            yield where, f"has no member {name!r}"
