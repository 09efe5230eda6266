"""The members of every structure in a request, as a table, and the check of a body against it.

A structure maps its members to kinds; `!` marks a required one. A kind is the name of another
structure, `[kind]` for an array of it, or one of the plain kinds below. Of a union exactly one
member must be there. Source of truth: the service's published request model.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Final, TypeAlias

from kiro_mcp.emulator.body import items, members

Finding: TypeAlias = tuple[str, str]
"""Where a body is at fault, and how."""


class WireForm(StrEnum):
    """How a prompt is addressed, which decides what its body may carry."""

    REST = "REST"
    RPC_GENERATE = "GenerateAssistantResponse"
    RPC_SEND = "SendMessage"


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


def is_object(value: object) -> bool:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


def is_array(value: object) -> bool:
    """Whether it is a JSON array."""
    return isinstance(value, list)


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
    "object": is_object,
    "resultStatus": lambda value: value in ("success", "error"),
    "string": lambda value: isinstance(value, str),
    "uuid": is_uuid,
}


def misshapen(body: object, form: WireForm) -> Iterator[Finding]:
    """Everything in a body that its form does not have, or has in another shape."""
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
    if not is_array(value):
        yield where, "is no array"
    for index, item in enumerate(items(value)):
        yield from _in_value(item, kind, f"{where}[{index}]")


def _in_structure(value: object, structure: Mapping[str, str], where: str) -> Iterator[Finding]:
    if not is_object(value):
        yield where, "is no object"
        return
    kinds = {name.rstrip("!"): kind for name, kind in structure.items()}
    present = members(value)
    for name in structure:
        if name.endswith("!") and name.rstrip("!") not in present:
            yield where, f"lacks {name.rstrip('!')}"
    for name, member in present.items():
        if name in kinds:
            yield from _in_value(member, kinds[name], f"{where}.{name}")
        else:
            yield where, f"has no member {name!r}"
