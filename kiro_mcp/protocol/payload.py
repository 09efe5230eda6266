"""What is asked -> the service's JSON.

Rules, as the service's official clients keep them and as probes of the service confirm:
the system prompt has no member of its own and goes before the first user turn's text; the
history ends with an assistant turn and the current message is the user's; absent members are
left out, never null; origin and model are the same throughout. Equal requests give
byte-identical payloads, so that the service's prompt cache holds.
"""

import json
from collections.abc import Sequence

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.models import ChatRequest, JsonObject, Message, TextPart


def build_payload(request: ChatRequest, *, origin: str, profile_arn: str) -> JsonObject:
    """Build the body of `GenerateAssistantResponse` in its REST form.

    Args:
        request: What is asked; its last message is the user's.
        origin: The origin of the endpoint it goes to.
        profile_arn: The profile to bill; "" leaves it out, as API keys must.

    Raises:
        InvalidRequest: There is no message, or the last one is not the user's.
    """
    if not request.messages or request.messages[-1].role != "user":
        raise InvalidRequest(
            "There is nothing to answer: the last message is not the user's.",
            next_step="Give a prompt.",
        )
    turns = [_turn(message, request.model, origin) for message in request.messages]
    _put_system_first(turns, request.system)
    state: JsonObject = {
        "conversationId": request.conversation_id,
        "chatTriggerType": "MANUAL",
        "currentMessage": turns[-1],
    }
    if len(turns) > 1:
        state["history"] = list(turns[:-1])
    payload: JsonObject = {"conversationState": state}
    if profile_arn:
        payload["profileArn"] = profile_arn
    return payload


def encode_payload(payload: JsonObject) -> bytes:
    """Encode a payload as compact UTF-8 JSON."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _turn(message: Message, model: str, origin: str) -> JsonObject:
    # The service refuses empty content; a readable filler would be imitated by the model.
    text = _joined_text(message) or " "
    if message.role == "assistant":
        return {"assistantResponseMessage": {"content": text}}
    return {"userInputMessage": {"content": text, "modelId": model, "origin": origin}}


def _joined_text(message: Message) -> str:
    return "\n".join(part.text for part in message.parts if isinstance(part, TextPart))


def _put_system_first(turns: Sequence[JsonObject], system: str) -> None:
    if not system:
        return
    first = next(turn["userInputMessage"] for turn in turns if "userInputMessage" in turn)
    assert isinstance(first, dict)
    first["content"] = f"{system}\n\n{first['content']}"
