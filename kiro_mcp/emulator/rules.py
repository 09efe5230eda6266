"""The rules that a call has to follow: one function each, and the service's answer to a violation.

The rules are written from the service's behaviour alone and share no code with the builder of
requests, so that the two check each other: `refusals(body)` is empty exactly for the bodies that
the emulator answers. A rule yields each location where a call breaks it, with a description.
`RULES` lists the rules in the order in which the service checks them. Source of truth: the
service's published limits and schemas, and its observed behaviour; where observations differ, the
stricter one.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Final, TypeAlias

from kiro_mcp.emulator.body import (
    Call,
    Finding,
    WireForm,
    is_uuid,
    items,
    members,
    misshapen,
    text,
    walk,
)
from kiro_mcp.emulator.catalogue import CATALOGUE, Model
from kiro_mcp.emulator.frames import sign
from kiro_mcp.emulator.refusals import (
    BODY_INVALID,
    INVALID_CONVERSATION,
    INVALID_MODEL,
    INVALID_SIGNATURE,
    INVALID_TOOL_USE,
    MALFORMED,
    NOT_AUTHORIZED,
    PROFILE_REQUIRED,
    Refusal,
)

ORIGINS: Final = frozenset(
    [
        "AI_EDITOR",
        "CHATBOT",
        "CLI",
        "CONSOLE",
        "DOCUMENTATION",
        "GITLAB",
        "IDE",
        "INLINE_CHAT",
        "KIRO_CLI",
        "MARKETING",
        "MD",
        "MD_CE",
        "MD_IDE",
        "MOBILE",
        "OPENSEARCH_DASHBOARD",
        "Q_DEV_BEXT",
        "SAGE_MAKER",
        "SERVICE_INTERNAL",
        "SM_AI_STUDIO_IDE",
        "UNIFIED_SEARCH",
        "UNKNOWN",
    ]
)
"""Every origin that the service knows; a message without one comes from `SERVICE_INTERNAL`."""

ORIGINS_TAKEN: Final[Mapping[WireForm, frozenset[str]]] = {
    WireForm.REST: frozenset({"KIRO_CLI", "AI_EDITOR"}),
    WireForm.RPC_GENERATE: frozenset({"KIRO_CLI", "AI_EDITOR", "CLI"}),
    WireForm.RPC_SEND: frozenset({"CLI"}),
}
"""The origins that each form of the call was observed to work with (2026)."""

_TRIGGER_TYPES: Final = frozenset({"MANUAL", "DIAGNOSTIC", "INLINE_CHAT"})
_TASK_TYPES: Final = frozenset({"vibe", "spectask"})


MAX_DESCRIPTION_BYTES: Final = 10_240
"""The longest description of a tool, in UTF-8."""

_TOOL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TOOL_USE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PROPERTY_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAPS_OF_SCHEMAS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_SCHEMAS: Final = frozenset(
    {"items", "prefixItems", "additionalProperties", "contains", "allOf", "anyOf", "oneOf", "not"}
    | {"if", "then", "else", "unevaluatedItems", "unevaluatedProperties", "propertyNames"}
)
_ROOT_COMBINATORS: Final = ("oneOf", "anyOf", "allOf")


MAX_IMAGES: Final = 10
"""The most images in one request, its history included."""

MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024
"""The largest image, decoded."""

_IMAGE_FORMATS: Final = frozenset({"gif", "jpeg", "png", "webp"})
_DOCUMENT_FORMATS: Final = frozenset(
    {"csv", "doc", "docx", "html", "md", "pdf", "txt", "xls", "xlsx"}
)
_DOCUMENT_NAME: Final = re.compile(r"(?! )(?!.*  )[A-Za-z0-9 _()\[\]-]{1,200}(?<! )")


# --- the conversation


def strings_are_unicode(call: Call) -> Iterator[Finding]:
    """No string and no name of a member holds half of a surrogate pair."""
    for where, value in walk(call.body, "$"):
        for string in (text(value), *members(value)):
            if not _is_unicode(string):
                yield where, "a string holds half of a surrogate pair"


def _is_unicode(string: str) -> bool:
    try:
        string.encode()
    except UnicodeEncodeError:
        return False
    return True


def no_member_is_null(call: Call) -> Iterator[Finding]:
    """A member without a value is left out, not null."""
    for where, value in walk(call.body, "$"):
        for name, member in members(value).items():
            if member is None:
                yield f"{where}.{name}", "is null"


def profile_is_named(call: Call) -> Iterator[Finding]:
    """The body names a profile, unless the caller has an API key."""
    if call.requires_profile_arn and "profileArn" not in call.members:
        yield "$", "lacks profileArn"


def members_are_known(call: Call) -> Iterator[Finding]:
    """The body has only members of its form, each in its shape."""
    return misshapen(call.body, call.form)


def trigger_is_known(call: Call) -> Iterator[Finding]:
    """`chatTriggerType` has one of its three values."""
    trigger = text(call.conversation.state.get("chatTriggerType"))
    if trigger not in _TRIGGER_TYPES:
        yield "$.conversationState.chatTriggerType", f"{trigger!r} is not one of its values"


def task_type_is_known(call: Call) -> Iterator[Finding]:
    """`agentTaskType`, if it is given, has one of its values."""
    task = call.conversation.state.get("agentTaskType", "vibe")
    if text(task) not in _TASK_TYPES:
        yield "$.conversationState.agentTaskType", f"{task!r} is not one of its values"


def conversation_id_is_uuid(call: Call) -> Iterator[Finding]:
    """The conversation's id, if it is given, is a UUID."""
    state = call.conversation.state
    if "conversationId" in state and not is_uuid(state["conversationId"]):
        yield "$.conversationState.conversationId", "is not a UUID"


def origin_is_one(call: Call) -> Iterator[Finding]:
    """The history names the origin of the current message, or none."""
    current = call.conversation.current.message.get("origin")
    for turn in call.conversation.history:
        if turn.message.get("origin", current) != current:
            yield turn.where, "has another origin than the current message"


def origin_is_known(call: Call) -> Iterator[Finding]:
    """The origin, if it is given, is one that the service knows."""
    current = call.conversation.current
    origin = text(current.message.get("origin", "UNKNOWN"))
    if origin not in ORIGINS:
        yield current.where, f"origin {origin!r} is not one of its values"


def origin_is_taken(call: Call) -> Iterator[Finding]:
    """The form of the call takes this origin. Without one the caller is an internal service."""
    current = call.conversation.current
    origin = text(current.message.get("origin")) or "SERVICE_INTERNAL"
    if origin not in ORIGINS_TAKEN[call.form]:
        yield current.where, f"origin {origin!r} is not accepted here"


def history_is_whole(call: Call) -> Iterator[Finding]:
    """The history starts with the user and ends with the assistant."""
    history = call.conversation.history
    if history and history[0].role != "user":
        yield history[0].where, "the history starts with the assistant"
    if history and history[-1].role != "assistant":
        yield history[-1].where, "the history ends with the user"


def roles_alternate(call: Call) -> Iterator[Finding]:
    """No two messages of one role in a row."""
    for before, turn in pairwise(call.conversation.turns):
        if before.role == turn.role:
            yield turn.where, f"is the second {turn.role} message in a row"


def content_is_there(call: Call) -> Iterator[Finding]:
    """No message is empty; one space is enough."""
    for turn in call.conversation.turns:
        if not turn.content:
            yield turn.where, "has no content"


def reasoning_is_a_union(call: Call) -> Iterator[Finding]:
    """Reasoning comes back as a text with its signature, or as redacted content."""
    for turn in call.conversation.history:
        reasoning = turn.message.get("reasoningContent", {"redactedContent": ""})
        fields = members(reasoning)
        plain = members(fields.get("reasoningText"))
        is_text = isinstance(plain.get("text"), str) and plain.keys() <= {"text", "signature"}
        is_redacted = isinstance(fields.get("redactedContent"), str)
        if len(fields) != 1 or not (is_text or is_redacted):
            yield turn.where, "Invalid reasoningContent."


def signatures_are_genuine(call: Call) -> Iterator[Finding]:
    """A signature, if there is one, belongs to its text."""
    for turn in call.conversation.history:
        plain = members(members(turn.message.get("reasoningContent")).get("reasoningText"))
        if "signature" in plain and plain["signature"] != sign(text(plain.get("text"))):
            yield turn.where, "the signature does not belong to this text"


def model_is_offered(call: Call) -> Iterator[Finding]:
    """The model is in the catalogue."""
    if call.model is None:
        yield call.conversation.current.where, "names a model that is not in the catalogue"


# --- tools


def tools_are_current(call: Call) -> Iterator[Finding]:
    """Tools are declared with the current message only."""
    for turn in call.conversation.history:
        if "tools" in turn.context:
            yield turn.where, "declares tools in the history"


def tool_names_fit(call: Call) -> Iterator[Finding]:
    """A tool's name is a letter, then up to 63 letters, digits, `_` and `-`, and is unique."""
    names = [text(spec.get("name")) for spec in call.conversation.tool_specs]
    for name in names:
        if _TOOL_NAME.fullmatch(name) is None:
            yield "$.conversationState.currentMessage", f"{name!r} is not a valid name of a tool"
    for name in _repeated(names):
        yield "$.conversationState.currentMessage", f"declares the tool {name!r} twice"


def tool_descriptions_fit(call: Call) -> Iterator[Finding]:
    """Every tool has a description, not longer than the service takes."""
    for spec in call.conversation.tool_specs:
        description, name = text(spec.get("description")), text(spec.get("name"))
        if not description.strip():
            yield "$.conversationState.currentMessage", f"the tool {name!r} has no description"
        if len(description.encode(errors="surrogatepass")) > MAX_DESCRIPTION_BYTES:
            yield "$.conversationState.currentMessage", f"the description of {name!r} is too long"


def tool_schemas_fit(call: Call) -> Iterator[Finding]:
    """The schema of a tool is a plain object schema, without combinators at its root."""
    for spec in call.conversation.tool_specs:
        where = f"the schema of {text(spec.get('name'))!r}"
        schema = members(members(spec.get("inputSchema")).get("json"))
        if schema.get("type") != "object":
            yield where, "its root is not an object"
        for name in _ROOT_COMBINATORS:
            if name in schema:
                yield where, f"has {name} at its root"
        if not isinstance(schema.get("properties", {}), dict):
            yield where, "its properties are not an object"
        if not isinstance(schema.get("required", []), list):
            yield where, "its required members are not an array"


def property_names_fit(call: Call) -> Iterator[Finding]:
    """A property's name is 1 to 64 letters, digits, `_`, `.` and `-`, at any depth."""
    for spec in call.conversation.tool_specs:
        for name in _property_names(members(spec.get("inputSchema")).get("json")):
            if _PROPERTY_NAME.fullmatch(name) is None:
                where = f"the schema of {text(spec.get('name'))!r}"
                yield where, f"{name!r} is not a valid name of a property"


def _property_names(schema: object) -> Iterator[str]:
    for keyword, member in members(schema).items():
        if keyword == "properties":
            yield from members(member)
        if keyword in _MAPS_OF_SCHEMAS:
            inner = list(members(member).values())
        elif keyword in _SCHEMAS:
            inner = [*items(member), member]
        else:
            continue
        for one in inner:
            yield from _property_names(one)


def tool_schemas_are_valid(call: Call) -> Iterator[Finding]:
    """The schema of a tool is valid by JSON Schema 2020-12, its patterns included."""
    for spec in call.conversation.tool_specs:
        schema = members(members(spec.get("inputSchema")).get("json"))
        for error in _meta_schema().iter_errors(schema):
            where = f"the schema of {text(spec.get('name'))!r}"
            yield where, f"JSON schema is invalid: {error.message[:80]}"


@cache
def _meta_schema() -> Any:
    import jsonschema_rs  # Few emulators need this import.

    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    return jsonschema_rs.Draft202012Validator(meta, validate_formats=True)


def tool_schemas_stand_alone(call: Call) -> Iterator[Finding]:
    """The schema of a tool has no `$ref`."""
    for spec in call.conversation.tool_specs:
        for where, value in walk(spec.get("inputSchema"), f"the schema of {spec.get('name')!r}"):
            if isinstance(members(value).get("$ref"), str):
                yield where, "is a reference"


def tool_uses_fit(call: Call) -> Iterator[Finding]:
    """The id of a tool use is 1 to 64 letters, digits, `_` and `-`; its input is an object."""
    for turn in call.conversation.turns:
        for use in turn.tool_uses:
            if not isinstance(use.get("input"), dict):
                yield turn.where, "the input of a tool use is not an object"
        for tool_use_id in [*_ids(turn.tool_uses), *_ids(turn.tool_results)]:
            if _TOOL_USE_ID.fullmatch(tool_use_id) is None:
                yield turn.where, f"{tool_use_id!r} is not a valid id of a tool use"


def tool_uses_are_declared(call: Call) -> Iterator[Finding]:
    """A tool that the history uses is declared now."""
    declared = {text(spec.get("name")) for spec in call.conversation.tool_specs}
    for turn in call.conversation.history:
        for use in turn.tool_uses:
            if text(use.get("name")) not in declared:
                yield turn.where, f"uses the tool {use.get('name')!r}, which is not declared"


def tool_use_ids_are_unique(call: Call) -> Iterator[Finding]:
    """An id stands for one use in the whole conversation, and is answered once."""
    turns = call.conversation.turns
    uses = [tool_use_id for turn in turns for tool_use_id in _ids(turn.tool_uses)]
    for tool_use_id in _repeated(uses):
        yield "$.conversationState", f"the id {tool_use_id!r} stands for two tool uses"
    for turn in turns:
        for tool_use_id in _repeated(_ids(turn.tool_results)):
            yield turn.where, f"has two results for {tool_use_id!r}"


def tool_uses_are_answered(call: Call) -> Iterator[Finding]:
    """The message after a tool use brings its result."""
    for turn, after in pairwise(call.conversation.turns):
        for tool_use_id in sorted({*_ids(turn.tool_uses)} - {*_ids(after.tool_results)}):
            yield after.where, f"lacks the result for {tool_use_id!r}"


def tool_results_are_asked_for(call: Call) -> Iterator[Finding]:
    """A result answers a tool use of the message before it."""
    asked = set[str]()
    for turn in call.conversation.turns:
        for tool_use_id in sorted({*_ids(turn.tool_results)} - asked):
            yield turn.where, f"nothing asked for the result {tool_use_id!r}"
        asked = {*_ids(turn.tool_uses)}


def _ids(uses_or_results: Sequence[Mapping[str, object]]) -> list[str]:
    return [text(entry.get("toolUseId")) for entry in uses_or_results]


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


# --- images, documents, fields of a model


def images_are_few(call: Call) -> Iterator[Finding]:
    """A call has at most ten images."""
    count = sum(len(turn.images) for turn in call.conversation.turns)
    if count > MAX_IMAGES:
        yield "$.conversationState", f"holds {count} images"


def images_fit(call: Call) -> Iterator[Finding]:
    """Every image has a format and a size that the service takes."""
    for turn in call.conversation.turns:
        for image in turn.images:
            if text(image.get("format")) not in _IMAGE_FORMATS:
                yield turn.where, f"has an image of format {image.get('format')!r}"
            if _decoded_size(image) > MAX_IMAGE_BYTES:
                yield turn.where, "has an image that is too large"


def _decoded_size(image: Mapping[str, object]) -> int:
    encoded = text(members(image.get("source")).get("bytes"))
    return len(encoded) // 4 * 3 - encoded.count("=", -2)


def documents_fit(call: Call) -> Iterator[Finding]:
    """Every document has a format that the service takes, and a plain name."""
    for turn in call.conversation.turns:
        for document in map(members, items(turn.message.get("documents"))):
            if text(document.get("format")) not in _DOCUMENT_FORMATS:
                yield turn.where, f"has a document of format {document.get('format')!r}"
            if _DOCUMENT_NAME.fullmatch(text(document.get("name"))) is None:
                yield turn.where, f"{document.get('name')!r} is not a valid name of a document"


def model_fields_fit(call: Call) -> Iterator[Finding]:
    """Extra fields fit the schema that the model publishes; without a schema there are none."""
    if "additionalModelRequestFields" not in call.members:
        return
    schema = (call.model or {}).get("additionalModelRequestFieldsSchema")
    if schema is None:
        yield "additionalModelRequestFields", "is not supported by this model"
        return
    fields = call.members["additionalModelRequestFields"]
    yield from breaches(fields, schema, "additionalModelRequestFields")


def breaches(value: object, schema: Mapping[str, object], where: str) -> Iterator[Finding]:
    """Yield where a value breaks a schema. Knows only the keywords that the catalogue uses."""
    if not _is_of_type(value, text(schema.get("type"))):
        yield where, f"must be of type {schema.get('type')}"
        return
    choices = items(schema.get("enum"))
    if choices and value not in choices:
        yield where, f"must be one of {', '.join(map(str, choices))}"
    yield from _out_of_range(value, schema, where)
    properties = members(schema.get("properties"))
    for name in items(schema.get("required")):
        if name not in members(value):
            yield f"{where}.{name}", "is required"
    for name, member in members(value).items():
        if name in properties:
            yield from breaches(member, members(properties[name]), f"{where}.{name}")
        else:
            yield f"{where}.{name}", "is an unknown property"


def _is_of_type(value: object, name: str) -> bool:
    types: Mapping[str, type] = {"object": dict, "string": str, "integer": int}
    return isinstance(value, types[name]) and not isinstance(value, bool)


def _out_of_range(value: object, schema: Mapping[str, object], where: str) -> Iterator[Finding]:
    minimum, maximum = schema.get("minimum"), schema.get("maximum")
    if not isinstance(value, int):
        return
    if isinstance(minimum, int) and value < minimum:
        yield where, f"must be at least {minimum}"
    if isinstance(maximum, int) and value > maximum:
        yield where, f"must be at most {maximum}"


# --- all rules

Rule: TypeAlias = Callable[[Call], Iterator[Finding]]

RULES: Final[tuple[tuple[Rule, Refusal], ...]] = (
    (strings_are_unicode, BODY_INVALID),
    (no_member_is_null, BODY_INVALID.saying("")),
    (profile_is_named, PROFILE_REQUIRED),
    (tool_uses_fit, INVALID_TOOL_USE),
    (reasoning_is_a_union, BODY_INVALID.saying("")),
    (members_are_known, MALFORMED),
    (trigger_is_known, MALFORMED),
    (task_type_is_known, MALFORMED),
    (conversation_id_is_uuid, INVALID_CONVERSATION),
    (origin_is_known, MALFORMED),
    (origin_is_one, MALFORMED),
    (origin_is_taken, NOT_AUTHORIZED),
    (history_is_whole, MALFORMED),
    (roles_alternate, MALFORMED),
    (content_is_there, MALFORMED),
    (tools_are_current, MALFORMED),
    (tool_names_fit, MALFORMED),
    (tool_descriptions_fit, MALFORMED),
    (tool_schemas_fit, MALFORMED),
    (tool_schemas_stand_alone, MALFORMED),
    (property_names_fit, MALFORMED),
    (tool_schemas_are_valid, MALFORMED),
    (tool_uses_are_declared, MALFORMED),
    (tool_use_ids_are_unique, MALFORMED),
    (tool_uses_are_answered, MALFORMED),
    (tool_results_are_asked_for, MALFORMED),
    (images_are_few, MALFORMED),
    (images_fit, MALFORMED),
    (documents_fit, MALFORMED),
    (model_is_offered, INVALID_MODEL),
    (model_fields_fit, BODY_INVALID.saying("")),
    (signatures_are_genuine, INVALID_SIGNATURE),
)
"""All rules, each with the answer to a violation. An empty message is replaced by the details."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One reason to refuse a body."""

    rule: str
    """The name of the rule it breaks."""
    where: str
    detail: str
    """What is wrong there; the service itself seldom says it."""
    refusal: Refusal
    """The answer of the service."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.where} {self.detail}"


def refusals(
    body: object,
    *,
    form: WireForm = WireForm.REST,
    catalogue: Sequence[Model] = CATALOGUE,
    requires_profile_arn: bool = True,
) -> list[Fault]:
    """Return all faults of a parsed body; the service answers with the first."""
    call = Call(
        body=body, form=form, catalogue=catalogue, requires_profile_arn=requires_profile_arn
    )
    return [
        Fault(
            rule=rule.__name__,
            where=where,
            detail=detail,
            refusal=refusal if refusal.message else refusal.saying(f"{where} {detail}."),
        )
        for rule, refusal in RULES
        for where, detail in rule(call)
    ]
