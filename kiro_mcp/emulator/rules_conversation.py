"""What the service asks of a body and of its conversation: one rule a function.

A rule yields where a call breaks it, and how. `kiro_mcp.emulator.validation` lists them all with
what the service answers. Source of truth: the service's behaviour as published and observed;
where observations differ, the stricter one.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from kiro_mcp.emulator.body import members, text, walk
from kiro_mcp.emulator.call import ORIGINS, ORIGINS_TAKEN, Call
from kiro_mcp.emulator.frames import sign
from kiro_mcp.emulator.shapes import Finding, is_uuid, misshapen

_TRIGGER_TYPES: Final = frozenset({"MANUAL", "DIAGNOSTIC", "INLINE_CHAT"})
_TASK_TYPES: Final = frozenset({"vibe", "spectask"})


def strings_are_unicode(call: Call) -> Iterator[Finding]:
    """Half of a surrogate pair is no text; names of members count too."""
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
    """An absent member is left out, never null."""
    for where, value in walk(call.body, "$"):
        for name, member in members(value).items():
            if member is None:
                yield f"{where}.{name}", "is null"


def profile_is_named(call: Call) -> Iterator[Finding]:
    """Every identity but an API key names its profile, in the body."""
    if call.requires_profile_arn and "profileArn" not in call.members:
        yield "$", "lacks profileArn"


def members_are_known(call: Call) -> Iterator[Finding]:
    """Only members that the form of the call has, each in its shape."""
    return misshapen(call.body, call.form)


def trigger_is_known(call: Call) -> Iterator[Finding]:
    """How the prompt came about, out of three ways."""
    trigger = text(call.conversation.state.get("chatTriggerType"))
    if trigger not in _TRIGGER_TYPES:
        yield "$.conversationState.chatTriggerType", f"{trigger!r} is none of its values"


def task_type_is_known(call: Call) -> Iterator[Finding]:
    """The agent's kind of task, where it is named."""
    task = call.conversation.state.get("agentTaskType", "vibe")
    if text(task) not in _TASK_TYPES:
        yield "$.conversationState.agentTaskType", f"{task!r} is none of its values"


def conversation_id_is_uuid(call: Call) -> Iterator[Finding]:
    """The id of the conversation, where there is one."""
    state = call.conversation.state
    if "conversationId" in state and not is_uuid(state["conversationId"]):
        yield "$.conversationState.conversationId", "is no UUID"


def origin_is_one(call: Call) -> Iterator[Finding]:
    """The history names the origin of the current message, or none."""
    current = call.conversation.current.message.get("origin")
    for turn in call.conversation.history:
        if turn.message.get("origin", current) != current:
            yield turn.where, "has another origin than the current message"


def origin_is_known(call: Call) -> Iterator[Finding]:
    """The origin, where there is one, is one of the service's."""
    current = call.conversation.current
    origin = text(current.message.get("origin", "UNKNOWN"))
    if origin not in ORIGINS:
        yield current.where, f"origin {origin!r} is none of its values"


def origin_is_taken(call: Call) -> Iterator[Finding]:
    """The form of the call takes its origin; one that names none is an internal service."""
    current = call.conversation.current
    origin = text(current.message.get("origin")) or "SERVICE_INTERNAL"
    if origin not in ORIGINS_TAKEN[call.form]:
        yield current.where, f"origin {origin!r} is not taken here"


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
    """Reasoning comes back as a text with its signature or as redacted content, not flat."""
    for turn in call.conversation.history:
        reasoning = turn.message.get("reasoningContent", {"redactedContent": ""})
        fields = members(reasoning)
        plain = members(fields.get("reasoningText"))
        is_text = isinstance(plain.get("text"), str) and plain.keys() <= {"text", "signature"}
        is_redacted = isinstance(fields.get("redactedContent"), str)
        if len(fields) != 1 or not (is_text or is_redacted):
            yield turn.where, "Invalid reasoningContent."


def signatures_are_genuine(call: Call) -> Iterator[Finding]:
    """A signature, where there is one, belongs to the text it comes with."""
    for turn in call.conversation.history:
        plain = members(members(turn.message.get("reasoningContent")).get("reasoningText"))
        if "signature" in plain and plain["signature"] != sign(text(plain.get("text"))):
            yield turn.where, "the signature is not of this text"


def model_is_offered(call: Call) -> Iterator[Finding]:
    """The model is in the catalogue."""
    if call.model is None:
        yield call.conversation.current.where, "names a model that is not in the catalogue"
