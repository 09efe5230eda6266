"""Why the service would refuse a payload."""

import copy
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kiro_mcp.chat import ModelFields, ModelInfo
from kiro_mcp.wire.findings import Finding
from kiro_mcp.wire.images import MAX_IMAGE_BYTES
from kiro_mcp.wire.lint import lint_payload
from kiro_mcp.wire.lint_tools import MAX_DESCRIPTION_BYTES

PNG = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
IMAGE = {"format": "png", "source": {"bytes": PNG}}
MODEL = ModelInfo(
    id="m",
    name="M",
    input_types=("TEXT", "IMAGE"),
    fields=ModelFields(
        effort_path=("output_config", "effort"),
        efforts=("low", "high"),
        thinking_types=("adaptive",),
        max_tokens=(1, 9),
    ),
)
PAYLOAD: dict[str, Any] = {
    "profileArn": "arn",
    "additionalModelRequestFields": {
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "low"},
        "max_tokens": 5,
    },
    "conversationState": {
        "conversationId": "6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11",
        "chatTriggerType": "MANUAL",
        "history": [
            {"userInputMessage": {"content": "a", "origin": "O", "images": [IMAGE]}},
            {
                "assistantResponseMessage": {
                    "content": "b",
                    "toolUses": [{"toolUseId": "t1", "name": "f", "input": {}}],
                    "reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}},
                }
            },
        ],
        "currentMessage": {
            "userInputMessage": {
                "content": " ",
                "origin": "O",
                "userInputMessageContext": {
                    "toolResults": [
                        {"toolUseId": "t1", "status": "success", "content": [{"text": "grüß"}]}
                    ],
                    "tools": [
                        {
                            "toolSpecification": {
                                "name": "f",
                                "description": "Does it.",
                                "inputSchema": {"json": {"type": "object", "properties": {}}},
                            }
                        }
                    ],
                },
            }
        },
    },
}


class Parts:
    """The parts of a payload that tests spoil."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = payload
        self.state = payload["conversationState"]
        self.history = self.state["history"]
        self.first = self.history[0]["userInputMessage"]
        self.answer = self.history[1]["assistantResponseMessage"]
        self.use = self.answer["toolUses"][0]
        self.current = self.state["currentMessage"]["userInputMessage"]
        self.context = self.current["userInputMessageContext"]
        self.result = self.context["toolResults"][0]
        self.tool = self.context["tools"][0]["toolSpecification"]
        self.schema = self.tool["inputSchema"]["json"]


def findings_after(
    spoil: Callable[[Parts], object], model: ModelInfo | None = MODEL
) -> Sequence[Finding]:
    payload = copy.deepcopy(PAYLOAD)
    spoil(Parts(payload))
    findings = lint_payload(payload, model=model)
    assert all(finding.place and finding.cause and finding.cure for finding in findings)
    return findings


def rules_after(spoil: Callable[[Parts], object], model: ModelInfo | None = MODEL) -> list[str]:
    return [finding.rule for finding in findings_after(spoil, model)]


def test_a_good_payload_has_no_findings() -> None:
    """The service's published schema."""
    assert lint_payload(PAYLOAD, model=MODEL) == ()
    assert lint_payload(PAYLOAD) == ()


FIRST = "history[0].userInputMessage"
ANSWER = "history[1].assistantResponseMessage"
CURRENT = "currentMessage.userInputMessage"

SPOILED: dict[str, tuple[str, str, Callable[[Parts], object]]] = {
    "null": (
        "sendable_values",
        f"payload.conversationState.{ANSWER}.toolUses[0].input.a[0]",
        lambda p: p.use.update(input={"a": [None]}),
    ),
    "nan": (
        "sendable_values",
        f"payload.conversationState.{ANSWER}.toolUses[0].input.a",
        lambda p: p.use.update(input={"a": float("nan")}),
    ),
    "half-pair": (
        "sendable_values",
        f"payload.conversationState.{FIRST}.content",
        lambda p: p.first.update(content="\ud800"),
    ),
    "half-pair-name": (
        "sendable_values",
        f"payload.conversationState.{ANSWER}.toolUses[0].input",
        lambda p: p.use.update(input={"\ud800": 1}),
    ),
    "id-no-uuid": (
        "conversation_id",
        "conversationId",
        lambda p: p.state.update(conversationId="x"),
    ),
    "id-no-text": ("conversation_id", "conversationId", lambda p: p.state.update(conversationId=3)),
    "empty": ("empty_content", f"{FIRST}.content", lambda p: p.first.update(content="")),
    "no-content": ("empty_content", f"{ANSWER}.content", lambda p: p.answer.pop("content")),
    "origin": ("one_origin", f"{FIRST}.origin", lambda p: p.first.update(origin="X")),
    "old-tools": (
        "tools_in_history",
        FIRST,
        lambda p: p.first.update(userInputMessageContext={"tools": []}),
    ),
    "long-name": (
        "tool_name",
        "tools",
        lambda p: (p.tool.update(name="n" * 65), p.use.update(name="f")),
    ),
    "tool-twice": (
        "repeated_tool",
        "tools",
        lambda p: p.context["tools"].append(p.context["tools"][0]),
    ),
    "no-description": (
        "tool_description",
        "tools.f.description",
        lambda p: p.tool.update(description=" "),
    ),
    "long-description": (
        "tool_description",
        "tools.f.description",
        lambda p: p.tool.update(description="ü" * (MAX_DESCRIPTION_BYTES // 2 + 1)),
    ),
    "schema-type": ("tool_schema", "tools.f.inputSchema", lambda p: p.schema.update(type="array")),
    "schema-root": ("tool_schema", "tools.f.inputSchema", lambda p: p.schema.update(anyOf=[])),
    "schema-properties": (
        "tool_schema",
        "tools.f.inputSchema",
        lambda p: p.schema.update(properties=[]),
    ),
    "schema-required": (
        "tool_schema",
        "tools.f.inputSchema",
        lambda p: p.schema.update(required="a"),
    ),
    "schema-reference": (
        "tool_schema",
        "tools.f.inputSchema",
        lambda p: p.schema.update(properties={"a": {"$ref": "#"}}),
    ),
    "use-id": (
        "tool_use_id",
        ANSWER,
        lambda p: (p.use.update(toolUseId="."), p.result.update(toolUseId=".")),
    ),
    "use-input": ("tool_use_input", ANSWER, lambda p: p.use.update(input="{}")),
    "result-content": ("tool_result", CURRENT, lambda p: p.result.update(content=[])),
    "result-union": (
        "tool_result",
        CURRENT,
        lambda p: p.result.update(content=[{"text": "a", "json": {}}]),
    ),
    "result-status": ("tool_result", CURRENT, lambda p: p.result.update(status="failed")),
    "undeclared": ("undeclared_tool", ANSWER, lambda p: p.context.pop("tools")),
    "use-twice": ("repeated_tool_use", "history", lambda p: p.answer["toolUses"].append(p.use)),
    "result-twice": (
        "repeated_result",
        CURRENT,
        lambda p: p.context["toolResults"].append(p.result),
    ),
    "no-result": ("missing_result", CURRENT, lambda p: p.context.pop("toolResults")),
    "orphan": ("orphan_result", CURRENT, lambda p: p.answer.pop("toolUses")),
    "image-format": (
        "image",
        f"{FIRST}.images[0]",
        lambda p: p.first.update(images=[{**IMAGE, "format": "jpg"}]),
    ),
    "image-bytes": (
        "image",
        f"{FIRST}.images[0]",
        lambda p: p.first.update(images=[{**IMAGE, "source": {"bytes": "aGVsbG8="}}]),
    ),
    "image-base64": (
        "image",
        f"{FIRST}.images[0]",
        lambda p: p.first.update(images=[{**IMAGE, "source": {"bytes": "?"}}]),
    ),
    "image-size": (
        "image",
        f"{FIRST}.images[0]",
        lambda p: p.first.update(
            images=[{**IMAGE, "source": {"bytes": "A" * (MAX_IMAGE_BYTES // 3 * 4 + 8)}}]
        ),
    ),
    "images": ("image_count", CURRENT, lambda p: p.first.update(images=[IMAGE] * 11)),
    "flat-reasoning": (
        "reasoning",
        f"{ANSWER}.reasoningContent",
        lambda p: p.answer.update(reasoningContent="hm"),
    ),
    "odd-reasoning": (
        "reasoning",
        f"{ANSWER}.reasoningContent",
        lambda p: p.answer.update(reasoningContent={"reasoningText": {"text": "hm", "x": 1}}),
    ),
    "field": ("model_field", "x", lambda p: p.payload["additionalModelRequestFields"].update(x=1)),
    "effort": (
        "model_field",
        "effort",
        lambda p: p.payload["additionalModelRequestFields"].update(
            output_config={"effort": "xhigh"}
        ),
    ),
    "effort-form": (
        "model_field",
        "y",
        lambda p: p.payload["additionalModelRequestFields"].update(output_config="high", y=1),
    ),
}


@pytest.mark.parametrize(("rule", "place", "spoil"), SPOILED.values(), ids=SPOILED.keys())
def test_each_fault_has_its_finding_and_its_place(
    rule: str, place: str, spoil: Callable[[Parts], object]
) -> None:
    """The service's published schema and limits, and what its refusals were traced back to."""
    found = [(finding.rule, finding.place) for finding in findings_after(spoil)]
    assert (rule, place) in found


def test_the_order_of_turns_has_its_findings() -> None:
    """The invariants of the service's official clients."""
    assert "history_begins" in rules_after(lambda p: p.history.pop(0))
    assert "history_ends" in rules_after(lambda p: p.history.pop(1))
    assert "roles_alternate" in rules_after(lambda p: p.history.append(p.history[1]))
    assert "current_is_users" in rules_after(lambda p: p.state.update(currentMessage=p.history[1]))


def test_redacted_reasoning_may_go_back() -> None:
    """The service's published schema."""
    assert (
        rules_after(lambda p: p.answer.update(reasoningContent={"redactedContent": "cg=="})) == []
    )


def test_what_a_model_cannot_read_or_take_is_found() -> None:
    """The service's list of models."""
    plain = ModelInfo(id="m", name="M", input_types=("TEXT",))
    assert rules_after(lambda p: None, plain) == [
        "images_unseen",
        "model_field",
        "model_field",
        "model_field",
    ]
    unknown = ModelInfo(id="m", name="M", input_types=(), fields=MODEL.fields)
    assert rules_after(lambda p: None, unknown) == []


@pytest.mark.parametrize(
    "payload", [{}, {"conversationState": 3}, {"conversationState": {"history": [3]}}]
)
def test_a_payload_of_any_shape_can_be_looked_at(payload: dict[str, Any]) -> None:
    """Ours: a payload may come from elsewhere."""
    assert [finding.rule for finding in lint_payload(payload)] == ["empty_content"]


def test_a_request_may_hold_ten_images() -> None:
    """The limit of the service's official client."""
    present = len(Parts(PAYLOAD).current.get("images", ()))
    assert rules_after(lambda p: p.first.update(images=[IMAGE] * (10 - present))) == []
    assert rules_after(lambda p: p.first.update(images=[IMAGE] * (11 - present))) == ["image_count"]


def test_the_limit_on_bytes_is_ours_to_set() -> None:
    """Ours: the service's own has moved from 0.6 to 11 MB within a year."""
    assert lint_payload(PAYLOAD, max_bytes=100_000) == ()
    (finding,) = lint_payload(PAYLOAD, max_bytes=100)
    assert (finding.rule, finding.code) == ("payload_size", "context_too_long")
