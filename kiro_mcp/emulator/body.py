"""The body of a request for an answer: read without trust, and checked for its shape.

`Call` is a body with the terms that hold for it. Its properties read a body of any shape: what is
missing or has another type reads as empty. `misshapen` compares a body with a table of all the
structures of a request: a structure maps its members to kinds; `!` marks a required one. A kind is
the name of another structure, `[kind]` for an array of it, or one of the plain kinds below. A union
has exactly one member. Everything else that the service demands is in `kiro_mcp.emulator.rules`.
Source of truth: the service's published request model.
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
"""Where a body is at fault, and how."""


class WireForm(StrEnum):
    """How a prompt is addressed, which decides what its body may carry."""

    REST = "REST"
    RPC_GENERATE = "GenerateAssistantResponse"
    RPC_SEND = "SendMessage"


# --- reading


def members(value: object) -> Mapping[str, object]:
    """The members of a JSON object; none of anything else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def items(value: object) -> Sequence[object]:
    """The items of a JSON array; none of anything else."""
    return cast("list[object]", value) if isinstance(value, list) else []


def text(value: object) -> str:
    """A JSON string; "" for anything else."""
    return value if isinstance(value, str) else ""


def walk(value: object, where: str) -> Iterator[tuple[str, object]]:
    """Every value inside `value`, itself first, with where it is, at any depth."""
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
        """What a user message carries besides its text."""
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
        """All of it."""
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
        """Every message, in order."""
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
    """A request for an answer, as its rules see it."""

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
        """What it carries beside them."""
        return members(self.body)

    @property
    def model(self) -> Model | None:
        """The catalogue's entry of the model it names; of the default one if it names none."""
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
    """Whether it is the text of a UUID."""
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
    """Yield each member that the form of a call does not have, or has in another shape."""
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
        yield where, f"is no {kind}"


def _in_array(value: object, kind: str, where: str) -> Iterator[Finding]:
    array = items(value)
    if not isinstance(value, list):
        yield where, "is no array"
    for index, item in enumerate(array):
        yield from _in_value(item, kind, f"{where}[{index}]")


def _in_structure(value: object, structure: Mapping[str, str], where: str) -> Iterator[Finding]:
    present = members(value)
    if not isinstance(value, dict):
        yield where, "is no object"
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
