"""Judges the body of a prompt as the service does: parsed JSON in, faults out.

It is written from the service's behaviour alone and shares nothing with any builder of requests,
so that the two check each other: `refusals(body)` is empty exactly for the bodies that the
emulator answers. Each rule is a function that yields its findings; `RULES` lists them in the order
in which they are met, with what the service answers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from kiro_mcp.emulator import rules_content as content
from kiro_mcp.emulator import rules_conversation as conversation
from kiro_mcp.emulator import rules_tools as tools
from kiro_mcp.emulator.call import Call
from kiro_mcp.emulator.catalogue import CATALOGUE, Model
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
from kiro_mcp.emulator.shapes import Finding, WireForm

Rule: TypeAlias = Callable[[Call], Iterator[Finding]]

RULES: Final[tuple[tuple[Rule, Refusal], ...]] = (
    (conversation.strings_are_unicode, BODY_INVALID),
    (conversation.no_member_is_null, BODY_INVALID.saying("")),
    (conversation.profile_is_named, PROFILE_REQUIRED),
    (tools.tool_uses_fit, INVALID_TOOL_USE),
    (conversation.reasoning_is_a_union, BODY_INVALID.saying("")),
    (conversation.members_are_known, MALFORMED),
    (conversation.trigger_is_known, MALFORMED),
    (conversation.task_type_is_known, MALFORMED),
    (conversation.conversation_id_is_uuid, INVALID_CONVERSATION),
    (conversation.origin_is_known, MALFORMED),
    (conversation.origin_is_one, MALFORMED),
    (conversation.origin_is_taken, NOT_AUTHORIZED),
    (conversation.history_is_whole, MALFORMED),
    (conversation.roles_alternate, MALFORMED),
    (conversation.content_is_there, MALFORMED),
    (tools.tools_are_current, MALFORMED),
    (tools.tool_names_fit, MALFORMED),
    (tools.tool_descriptions_fit, MALFORMED),
    (tools.tool_schemas_fit, MALFORMED),
    (tools.tool_schemas_stand_alone, MALFORMED),
    (tools.property_names_fit, MALFORMED),
    (tools.tool_schemas_are_valid, MALFORMED),
    (tools.tool_uses_are_declared, MALFORMED),
    (tools.tool_use_ids_are_unique, MALFORMED),
    (tools.tool_uses_are_answered, MALFORMED),
    (tools.tool_results_are_asked_for, MALFORMED),
    (content.images_are_few, MALFORMED),
    (content.images_fit, MALFORMED),
    (content.documents_fit, MALFORMED),
    (conversation.model_is_offered, INVALID_MODEL),
    (content.model_fields_fit, BODY_INVALID.saying("")),
    (conversation.signatures_are_genuine, INVALID_SIGNATURE),
)
"""Every rule, with the answer to its breach; an empty message means: name the fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One reason to refuse a body."""

    rule: str
    """The name of the rule it breaks."""
    where: str
    detail: str
    """What is wrong there; the service itself is seldom so clear."""
    refusal: Refusal
    """What the service answers."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.where} {self.detail}"


def refusals(
    body: object,
    *,
    form: WireForm = WireForm.REST,
    catalogue: Sequence[Model] = CATALOGUE,
    requires_profile_arn: bool = True,
) -> list[Fault]:
    """Every fault of a parsed body, first the one that the service would answer with."""
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
