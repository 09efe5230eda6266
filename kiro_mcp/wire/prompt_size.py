"""A payload -> about how many tokens it is.

The service says how full the context window was only after it has answered. The estimate is for
people: it warns, and never refuses.
"""

from typing import Final

from kiro_mcp.chat import BYTES_PER_TOKEN, JsonObject, ModelInfo
from kiro_mcp.wire.json_values import object_member
from kiro_mcp.wire.lint_view import read_payload, text_of

TOKENS_PER_IMAGE: Final = 1_600
"""About what the models count for a large image; its bytes say nothing of it."""


def estimate_tokens(body: JsonObject, size_bytes: int) -> int:
    """Estimate how many tokens a payload is.

    Args:
        body: The payload.
        size_bytes: Its size as JSON.
    """
    images = [image for turn in read_payload(body, None).turns for image in turn.images]
    of_images = sum(len(text_of(object_member(image, "source"), "bytes")) for image in images)
    text_tokens = max(0, size_bytes - of_images) // BYTES_PER_TOKEN
    return max(1, text_tokens) + TOKENS_PER_IMAGE * len(images)


def window_warnings(model: ModelInfo, tokens: int) -> tuple[str, ...]:
    """Warn of a prompt that may not fit into the model's context window."""
    if model.context_window is None or tokens <= model.context_window:
        return ()
    return (
        f"The prompt is about {tokens} tokens, and {model.id} reads {model.context_window}:"
        " the service may refuse it.",
    )
