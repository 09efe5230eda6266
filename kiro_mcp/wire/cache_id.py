"""The id that a whole history is sent under, so that the service's prompt cache finds it again.

The service caches a GPT model's prompt by `conversationId`; Claude's is cached by content, whatever
the id. A caller that sends a whole history with each call has no id of ours to send along, so the
id is derived from the history itself:

* from its head, which is the system prompt and all that the user says before the first answer.
  That is the only part that stays the same while a history grows: the first call has nothing else.
* from nothing behind it. Histories that part after the same head share an id, which costs nothing:
  they share a beginning that can be cached, and the service keeps nothing else by the id.
* from neither tools, model nor effort: they may change from call to call.
* from whose credential it is sent with, so that no two people ever share an id.
"""

import hashlib
import uuid
from collections.abc import Iterable

from kiro_mcp.chat import ImagePart, Message, TextPart, ToolResult


def history_head(messages: Iterable[Message], system: str) -> str:
    """Return a digest of the head of a history."""
    digest = hashlib.sha256()

    def add(text: str) -> None:
        encoded = text.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))  # So that no two lists look the same.
        digest.update(encoded)

    add(system)
    has_user = False
    for message in messages:
        if message.role == "assistant" and has_user:
            break
        has_user = has_user or message.role == "user"
        for part in message.parts:
            match part:
                case TextPart():
                    add(part.text)
                case ImagePart():
                    add(part.data)
                case ToolResult():
                    add(part.text)
                case _:
                    pass
    return digest.hexdigest()


def cache_id(head: str, owner: str) -> str:
    """Return the UUID that a history with this head has for this owner."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{len(owner)} {owner} {head}"))
