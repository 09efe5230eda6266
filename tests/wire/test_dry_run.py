"""What would have been sent."""

import json
from base64 import b64encode
from typing import Any

from kiro_mcp.chat import (
    ChatRequest,
    ImagePart,
    Message,
    TextPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.wire.request import (
    Envelope,
    draft_payload,
    without_content,
)

ENVELOPE = Envelope(
    origin="KIRO_CLI", profile_arn="arn:aws:codewhisperer:us-east-1:1:profile/S3CRET"
)
PICTURE = ImagePart(format="png", data=b64encode(b"\x89PNG\r\n\x1a\n" + bytes(100_000)).decode())
CHAT = ChatRequest(
    messages=(
        Message(role="user", parts=(TextPart(text="s3cret question"), PICTURE)),
        Message(
            role="assistant",
            parts=(ToolUse(id="t1", name="f", arguments={"name": "s3cret", "l": ["s3cret", 1]}),),
        ),
        Message(role="user", parts=(ToolResult(id="t1", text="s3cret", data={"type": "s3cret"}),)),
    ),
    system="s3cret",
    model="claude-opus-4.6",
    effort="xhigh",
    tools=(
        ToolSpec(
            name="f",
            description="s3cret",
            input_schema={"type": "object", "properties": {"name": {"const": "s3cret"}}},
        ),
    ),
    conversation_id="6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11",
)


def test_content_is_not_shown() -> None:
    """A dry run may end up in a bug report."""
    payload = draft_payload(CHAT, ENVELOPE)
    hidden: Any = without_content(payload.body)
    text = json.dumps(hidden)
    assert "s3cret" not in text.lower()
    assert PICTURE.data not in text
    state = hidden["conversationState"]
    assert state["currentMessage"]["userInputMessage"]["modelId"] == "claude-opus-4.6"
    (use,) = state["history"][1]["assistantResponseMessage"]["toolUses"]
    assert (use["name"], use["toolUseId"]) == ("f", "t1")
    assert use["input"] == {"name": "<6 characters>", "l": ["<6 characters>", 1]}


def test_structure_is_shown_and_the_callers_own_data_is_not_taken_for_it() -> None:
    """What a bug report needs, and no more."""
    structure: dict[str, Any] = {
        "conversationState": {"agentMode": "vibe", "chatTriggerType": "MANUAL"},
        "conversationId": "c",
        "history": [{"modelId": "m", "origin": "KIRO_CLI"}, {"images": [{"format": "png"}]}],
        "toolResults": [{"toolUseId": "t", "status": "error", "name": "f"}],
        "fields": {"thinking": {"type": "adaptive", "display": "omitted"}, "effort": "low"},
    }
    assert without_content(structure) == structure
    assert without_content({"input": structure, "content": ["", 1, None]}) == {
        "input": {
            "conversationState": {
                "agentMode": "<4 characters>",
                "chatTriggerType": "<6 characters>",
            },
            "conversationId": "<1 characters>",
            "history": [
                {"modelId": "<1 characters>", "origin": "<8 characters>"},
                {"images": [{"format": "<3 characters>"}]},
            ],
            "toolResults": [
                {
                    "toolUseId": "<1 characters>",
                    "status": "<5 characters>",
                    "name": "<1 characters>",
                }
            ],
            "fields": {
                "thinking": {"type": "<8 characters>", "display": "<7 characters>"},
                "effort": "<3 characters>",
            },
        },
        "content": ["<0 characters>", 1, None],
    }
