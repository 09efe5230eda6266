"""Checks the body of a prompt as the service does, and names the service's answer to each fault.

`read_call` returns no faults exactly for the bodies that the emulator answers. First the values
of the JSON are checked, then the structures of `kiro_mcp.emulator.request`, then the rules below,
one function each. A rule yields a description of each fault that it finds.

The checks are written from the service's behaviour alone and share no code with the builder of
requests, so that the two check each other. Source of truth: the service's published limits and
schemas, and its observed behaviour; where observations differ, the stricter one.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final, TypeAlias, cast

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from kiro_mcp.emulator import refusals
from kiro_mcp.emulator.catalogue import CATALOGUE, Model
from kiro_mcp.emulator.frames import sign
from kiro_mcp.emulator.refusals import Refusal
from kiro_mcp.emulator.request import (
    REQUESTS,
    AssistantMessage,
    Call,
    RestRequest,
    UserMessage,
    WireForm,
    describe_errors,
)

ORIGINS_TAKEN: Final[Mapping[WireForm, frozenset[str]]] = {
    WireForm.REST: frozenset({"KIRO_CLI", "AI_EDITOR"}),
    WireForm.RPC_GENERATE: frozenset({"KIRO_CLI", "AI_EDITOR", "CLI"}),
    WireForm.RPC_SEND: frozenset({"CLI"}),
    WireForm.KAS: frozenset({"AI_EDITOR"}),
}
"""The origins that each form of the call was observed to work with (2026)."""

MAX_IMAGES: Final = 10
"""The most images in one request, its history included."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PROPERTY_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAPS_OF_SCHEMAS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_SCHEMAS: Final = frozenset(
    {"items", "prefixItems", "additionalProperties", "contains", "allOf", "anyOf", "oneOf", "not"}
    | {"if", "then", "else", "unevaluatedItems", "unevaluatedProperties", "propertyNames"}
)

_BODY_INVALID: Final = refusals.BODY_INVALID.saying("")
"""It says what is wrong."""

_REFUSALS_BY_MEMBER: Final[Mapping[str | int, Refusal]] = {
    "toolUseId": refusals.INVALID_TOOL_USE,
    "input": refusals.INVALID_TOOL_USE,
    "reasoningContent": _BODY_INVALID,
    "conversationId": refusals.INVALID_CONVERSATION,
}
"""The answers to wrong values of these members."""


class Fault:
    """One reason to refuse a body.

    Args:
        rule: The name of the rule that it breaks.
        detail: What is wrong, and where; the service itself seldom says it.
        refusal: The answer of the service. The detail replaces an empty message.
    """

    def __init__(self, rule: str, detail: str, refusal: Refusal) -> None:
        self.rule = rule
        self.detail = detail
        self.refusal = refusal if refusal.message else refusal.saying(detail)

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


def read_call(
    body: object,
    *,
    form: WireForm = WireForm.REST,
    catalogue: Sequence[Model] = CATALOGUE,
    requires_profile_arn: bool = True,
) -> tuple[Call | None, list[Fault]]:
    """Read and check a parsed body.

    Returns:
        The call, None if its structure is wrong; and the faults: the service answers with the first
        one.
    """
    faults = list(_faults_of_values(body))
    if requires_profile_arn and not (isinstance(body, dict) and "profileArn" in body):
        faults.append(Fault("profile", "the body lacks profileArn", refusals.PROFILE_REQUIRED))
    if faults:
        return None, faults
    try:
        request = REQUESTS[form].model_validate(body)
    except ValidationError as error:
        return None, list(_faults_of_structure(error))
    call = Call(request, form, catalogue)
    return call, [
        Fault(rule.__name__, detail, refusal) for rule, refusal in RULES for detail in rule(call)
    ]


# --- values and structures


def _faults_of_values(body: object) -> Iterator[Fault]:
    """Find strings that are not Unicode, and members that are null, which must be left out."""
    for where, value in _walk(body, "$"):
        members = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        strings = [value] if isinstance(value, str) else [*members]
        if any(map(_SURROGATE.search, strings)):
            yield Fault("values", f"{where} has half of a surrogate pair", refusals.BODY_INVALID)
        for name, member in members.items():
            if member is None:
                yield Fault("values", f"{where}.{name} is null.", _BODY_INVALID)


def _walk(value: object, where: str) -> Iterator[tuple[str, Any]]:
    """Yield `value` and all values inside it, at any depth, each with its location."""
    waiting = [(where, value)]
    while waiting:
        where, current = waiting.pop()
        yield where, current
        if isinstance(current, dict):
            members = cast("dict[str, object]", current)
            waiting += [(f"{where}.{name}", inner) for name, inner in members.items()]
        elif isinstance(current, list):
            items = cast("list[object]", current)
            waiting += [(f"{where}[{index}]", inner) for index, inner in enumerate(items)]


def _faults_of_structure(error: ValidationError) -> Iterator[Fault]:
    for members, location, message in describe_errors(error):
        refusal = refusals.MALFORMED
        for member in members:
            refusal = _REFUSALS_BY_MEMBER.get(member, refusal)
        yield Fault("structure", f"${location}: {message}", refusal)


# --- the conversation


def origin_is_one(call: Call) -> Iterator[str]:
    """The history names the origin of the current message, or none."""
    for where, message in call.history:
        if isinstance(message, UserMessage) and message.origin not in (None, call.current.origin):
            yield f"{where} has another origin than the current message"


def origin_is_taken(call: Call) -> Iterator[str]:
    """The form of the call takes this origin. Without one the caller is an internal service."""
    origin = call.current.origin or "SERVICE_INTERNAL"
    if origin not in ORIGINS_TAKEN[call.form]:
        yield f"the origin {origin!r} is not accepted here"


def history_is_whole(call: Call) -> Iterator[str]:
    """The history starts with the user and ends with the assistant."""
    if call.history and not isinstance(call.history[0][1], UserMessage):
        yield "the history starts with the assistant"
    if call.history and not isinstance(call.history[-1][1], AssistantMessage):
        yield "the history ends with the user"


def roles_alternate(call: Call) -> Iterator[str]:
    """No two messages of one role in a row."""
    for (_, before), (where, message) in pairwise(call.messages):
        if type(before) is type(message):
            yield f"{where} has the same role as the message before it"


def conversation_id_fits(call: Call) -> Iterator[str]:
    """The id is a UUID; in Kiro's own form it is `sess_` and a UUID, and there must be one."""
    conversation_id = call.request.conversation_state.conversation_id
    is_kas = call.form is WireForm.KAS
    if conversation_id.startswith("sess_") != is_kas:
        wanted = "`sess_` and a UUID" if is_kas else "a UUID"
        yield f"conversationState.conversationId {conversation_id!r} is not {wanted}"


def contents_say_something(call: Call) -> Iterator[str]:
    """A message has a text; in Kiro's own form, one with tool uses or results has an empty one."""
    for where, message in call.messages:
        has_tools = message.used_ids or message.answered_ids
        if not message.content and not (call.form is WireForm.KAS and has_tools):
            yield f"{where}.content is empty"


def newer_members_fit(call: Call) -> Iterator[str]:
    """In Kiro's own form there are no `envState`, `messageId` and empty collections."""
    if call.form is not WireForm.KAS:
        return
    for where, message in call.messages:
        parts = [message, message.context] if isinstance(message, UserMessage) else [message]
        for part in parts:
            for name in sorted(part.model_fields_set):
                if name in ("env_state", "message_id"):
                    yield f"{where} has {to_camel(name)}, which this form does not have"
                elif getattr(part, name) in ([], {}):
                    yield f"{where} has an empty {to_camel(name)}, which must be left out"
    if not call.request.conversation_state.agent_continuation_id:
        yield "conversationState lacks agentContinuationId"
    if "history" in call.request.conversation_state.model_fields_set and not call.history:
        yield "conversationState has an empty history, which must be left out"


def signatures_are_genuine(call: Call) -> Iterator[str]:
    """A signature, if there is one, belongs to its text."""
    for where, message in call.history:
        reasoning = message.reasoning_content if isinstance(message, AssistantMessage) else None
        text = reasoning.reasoning_text if reasoning else None
        if text and text.signature not in (None, sign(text.text)):
            yield f"{where}: the signature does not belong to this text"


def model_is_offered(call: Call) -> Iterator[str]:
    """The model is in the catalogue."""
    if call.model is None:
        yield f"{call.current.model_id!r} is not in the catalogue"


def model_fields_fit(call: Call) -> Iterator[str]:
    """Extra fields fit the schema that the model publishes; without a schema there are none."""
    request, name = call.request, "additionalModelRequestFields"
    fields = request.additional_model_request_fields if isinstance(request, RestRequest) else None
    schema = (call.model or {}).get(f"{name}Schema")
    if fields is None:
        return
    if schema is None:
        yield f"{name} is not supported by this model."
        return
    import jsonschema_rs  # Few emulators need it.

    for error in jsonschema_rs.iter_errors(schema, fields):
        path = "".join(f".{member}" for member in error.instance_path)
        yield f"{name}{path}: {error.message}."


def images_are_few(call: Call) -> Iterator[str]:
    """A call has at most ten images."""
    count = len(call.images)
    if count > MAX_IMAGES:
        yield f"there are {count} images"


# --- tools


def tools_are_current(call: Call) -> Iterator[str]:
    """Tools are declared with the current message only."""
    for where, message in call.history:
        if isinstance(message, UserMessage) and message.context.tools:
            yield f"{where} declares tools"


def tool_names_are_unique(call: Call) -> Iterator[str]:
    """A tool is declared once."""
    for name in _repeated(tool.name for tool in call.tools):
        yield f"the tool {name!r} is declared twice"


def property_names_fit(call: Call) -> Iterator[str]:
    """A property's name is 1 to 64 letters, digits, `_`, `.` and `-`, at any depth."""
    for tool in call.tools:
        for name in _property_names(tool.input_schema.document):
            if _PROPERTY_NAME.fullmatch(name) is None:
                yield f"{name!r}, a property in the schema of {tool.name!r}, is not a valid name"


def _property_names(schema: object) -> Iterator[str]:
    members = cast("dict[str, object]", schema) if isinstance(schema, dict) else {}
    for keyword, member in members.items():
        inner = cast("dict[str, object]", member) if isinstance(member, dict) else {}
        if keyword == "properties":
            yield from inner
        schemas: list[object] = list(inner.values()) if keyword in _MAPS_OF_SCHEMAS else []
        if keyword in _SCHEMAS:
            schemas = cast("list[object]", member) if isinstance(member, list) else [member]
        for one in schemas:
            yield from _property_names(one)


def tool_schemas_are_valid(call: Call) -> Iterator[str]:
    """The schema of a tool is valid by JSON Schema 2020-12, its patterns included."""
    for tool in call.tools:
        for error in _meta_schema().iter_errors(tool.input_schema.document):
            yield f"the schema of {tool.name!r} is invalid: {error.message[:80]}"


@cache
def _meta_schema() -> Any:
    import jsonschema_rs  # Few emulators need it.

    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    return jsonschema_rs.Draft202012Validator(meta, validate_formats=True)


def tool_schemas_stand_alone(call: Call) -> Iterator[str]:
    """The schema of a tool has no `$ref`."""
    for tool in call.tools:
        for where, value in _walk(tool.input_schema.document, f"the schema of {tool.name!r}"):
            if where.endswith(".$ref") and isinstance(value, str):
                yield f"{where} is a reference"


def tool_uses_are_declared(call: Call) -> Iterator[str]:
    """A tool that the history uses is declared now."""
    declared = {tool.name for tool in call.tools}
    for where, message in call.history:
        for use in message.tool_uses if isinstance(message, AssistantMessage) else ():
            if use.name not in declared:
                yield f"{where} uses the tool {use.name!r}, which is not declared"


def tool_use_ids_are_unique(call: Call) -> Iterator[str]:
    """An id belongs to one use in the whole conversation, and gets one result."""
    for tool_use_id in _repeated(one for _, message in call.history for one in message.used_ids):
        yield f"the id {tool_use_id!r} belongs to two tool uses"
    for where, message in call.messages:
        for tool_use_id in _repeated(message.answered_ids):
            yield f"{where} has two results for {tool_use_id!r}"


def tool_uses_are_answered(call: Call) -> Iterator[str]:
    """The message after a tool use brings its result."""
    for (_, before), (where, message) in pairwise(call.messages):
        for tool_use_id in sorted({*before.used_ids} - {*message.answered_ids}):
            yield f"{where} lacks the result for {tool_use_id!r}"


def tool_results_are_asked_for(call: Call) -> Iterator[str]:
    """A result answers a tool use of the message before it."""
    asked = set[str]()
    for where, message in call.messages:
        for tool_use_id in sorted({*message.answered_ids} - asked):
            yield f"{where} has the result {tool_use_id!r}, for which nothing asked"
        asked = {*message.used_ids}


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


Rule: TypeAlias = Callable[[Call], Iterator[str]]

RULES: Final[Sequence[tuple[Rule, Refusal]]] = (
    (origin_is_one, refusals.MALFORMED),
    (origin_is_taken, refusals.NOT_AUTHORIZED),
    (conversation_id_fits, refusals.INVALID_CONVERSATION),
    (contents_say_something, refusals.MALFORMED),
    (newer_members_fit, refusals.MALFORMED),
    (history_is_whole, refusals.MALFORMED),
    (roles_alternate, refusals.MALFORMED),
    (tools_are_current, refusals.MALFORMED),
    (tool_names_are_unique, refusals.MALFORMED),
    (tool_schemas_stand_alone, refusals.MALFORMED),
    (property_names_fit, refusals.MALFORMED),
    (tool_schemas_are_valid, refusals.MALFORMED),
    (tool_uses_are_declared, refusals.MALFORMED),
    (tool_use_ids_are_unique, refusals.MALFORMED),
    (tool_uses_are_answered, refusals.MALFORMED),
    (tool_results_are_asked_for, refusals.MALFORMED),
    (images_are_few, refusals.MALFORMED),
    (model_is_offered, refusals.INVALID_MODEL),
    (model_fields_fit, _BODY_INVALID),
    (signatures_are_genuine, refusals.INVALID_SIGNATURE),
)
"""The rules in the order in which the service checks them, each with the answer to a fault."""
