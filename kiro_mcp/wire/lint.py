"""A payload -> named findings: why the service would refuse it.

The service answers most faults with one sentence, `Improperly formed request.`, and never says
which. So every payload goes through these rules before it is sent. They are written for any
payload and rely on nothing that the builder does: what it repairs shows here as no finding.

Source of truth: the service's published request model and limits; what its refusals were
traced back to, by the users and clients of the service (2025 to 2026).
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, TypeAlias

from kiro_mcp.chat import JsonObject, JsonValue, ModelInfo
from kiro_mcp.wire.findings import Finding
from kiro_mcp.wire.json_values import json_text
from kiro_mcp.wire.lint_content import CONTENT_RULES
from kiro_mcp.wire.lint_tools import TOOL_RULES
from kiro_mcp.wire.lint_view import Sent, read_payload, text_of, walk
from kiro_mcp.wire.prepare import LEGAL_CONVERSATION_ID

Rule: TypeAlias = Callable[[Sent], Iterator[Finding]]


def lint_payload(
    payload: JsonObject, *, model: ModelInfo | None = None, max_bytes: int = 0
) -> tuple[Finding, ...]:
    """Return everything in a payload that the service refuses; () if nothing is known of any.

    Args:
        payload: The body of a request for an answer.
        model: What is known of the model that it names.
        max_bytes: How large it may be; 0 for no limit of ours.
    """
    unsendable = tuple(_values_can_be_sent(payload))
    if unsendable:  # The other rules count on text that can be encoded.
        return unsendable
    sent = read_payload(payload, model)
    found = (finding for rule in RULES for finding in rule(sent))
    return (*found, *_size_fits(payload, max_bytes))


def _values_can_be_sent(payload: JsonObject) -> Iterator[Finding]:
    if _is_sendable(payload):
        return
    for place, value in walk(payload, "payload"):
        if cause := _unsendable(value):
            yield Finding(
                rule="sendable_values",
                place=place,
                cause=cause,
                cure="Leave it out, or send it as text.",
            )


def _is_sendable(payload: JsonObject) -> bool:
    """Say so without keeping places, which take most of the time: they are seldom asked for."""
    waiting: list[JsonValue] = [payload]
    while waiting:
        value = waiting.pop()
        if _unsendable(value):
            return False
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return True


def _unsendable(value: JsonValue) -> str:
    if value is None:
        return "is null"
    if isinstance(value, float) and not math.isfinite(value):
        return "is no number that JSON can hold"
    texts = (value,) if isinstance(value, str) else value if isinstance(value, dict) else ()
    return "" if all(map(_is_encodable, texts)) else "holds half of a surrogate pair"


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def conversation_id_is_uuid(sent: Sent) -> Iterator[Finding]:
    """The id of a conversation is a UUID, where there is one."""
    given = sent.state.get("conversationId", "00000000-0000-0000-0000-000000000000")
    if not isinstance(given, str) or not LEGAL_CONVERSATION_ID.fullmatch(given):
        yield Finding(
            rule="conversation_id",
            place="conversationId",
            cause="is no UUID",
            cure="Use the conversation_id of an earlier answer, or none.",
        )


def history_is_whole(sent: Sent) -> Iterator[Finding]:
    """The history begins with the user and ends with the assistant."""
    if sent.history and sent.history[0].role != "user":
        yield _order("history_begins", sent.history[0].place, "speaks before the user")
    if sent.history and sent.history[-1].role != "assistant":
        yield _order("history_ends", sent.history[-1].place, "is not answered in the history")
    if sent.current.role != "user":
        yield _order("current_is_users", sent.current.place, "is not the user's")


def roles_alternate(sent: Sent) -> Iterator[Finding]:
    """No two messages of one role follow each other."""
    for before, turn in pairwise(sent.turns):
        if before.role == turn.role:
            yield _order("roles_alternate", turn.place, f"is the second {turn.role} in a row")


def _order(rule: str, place: str, cause: str) -> Finding:
    return Finding(
        rule=rule, place=place, cause=cause, cure="Let user and assistant speak in turn."
    )


def content_is_there(sent: Sent) -> Iterator[Finding]:
    """No message is empty; a space is enough."""
    for turn in sent.turns:
        if not text_of(turn.message, "content"):
            yield Finding(
                rule="empty_content",
                place=f"{turn.place}.content",
                cause="is empty",
                cure="Send at least a space.",
            )


def origin_is_one(sent: Sent) -> Iterator[Finding]:
    """All messages name the same origin, or none."""
    current = sent.current.message.get("origin")
    for turn in sent.history:
        if turn.message.get("origin", current) != current:
            yield Finding(
                rule="one_origin",
                place=f"{turn.place}.origin",
                cause="is another than that of the current message",
                cure="Send one for the whole conversation.",
            )


def _size_fits(payload: JsonObject, max_bytes: int) -> Iterator[Finding]:
    if not max_bytes:
        return
    size = len(json_text(payload).encode())
    if size > max_bytes:
        yield Finding(
            rule="payload_size",
            place="payload",
            cause=f"is {size} bytes even without its oldest turns, over the limit of {max_bytes}",
            cure="Send less at once, or raise the limit.",
            code="context_too_long",
        )


RULES: Final[tuple[Rule, ...]] = (
    conversation_id_is_uuid,
    history_is_whole,
    roles_alternate,
    content_is_there,
    origin_is_one,
    *TOOL_RULES,
    *CONTENT_RULES,
)
"""Every rule, in the order in which findings are listed."""
