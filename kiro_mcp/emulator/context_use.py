"""How full a call leaves the model's context window: what it sent and what it got, in tokens.

The emulator counts as clients do that have no tokenizer: four bytes of UTF-8 are a token, and
an image is as many as a large one. The framing of the request counts for nothing.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from kiro_mcp.emulator.body import Conversation, Turn, items, members, text
from kiro_mcp.emulator.catalogue import Model

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_IMAGE: Final = 1_600

DEFAULT_WINDOW_TOKENS: Final = 200_000
"""The window of a model that the catalogue does not describe."""


def tokens_of(said: str) -> int:
    """About how many tokens a text is."""
    return -(-len(said.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def tokens_sent(conversation: Conversation) -> int:
    """About how many tokens the model has to read: its tools, and every message in order."""
    images = sum(len(turn.images) for turn in conversation.turns)
    said = "".join(_texts(conversation))
    return tokens_of(said) + TOKENS_PER_IMAGE * images


def context_window(catalogue: Sequence[Model], model_id: str) -> int:
    """How many tokens the context window of a model takes."""
    limits = (model.get("tokenLimits") for model in catalogue if model["modelId"] == model_id)
    tokens = members(next(limits, None)).get("maxInputTokens")
    return tokens if isinstance(tokens, int) and tokens > 0 else DEFAULT_WINDOW_TOKENS


def _texts(conversation: Conversation) -> Iterator[str]:
    for spec in conversation.tool_specs:
        yield json.dumps(spec, ensure_ascii=False)
    for turn in conversation.turns:
        yield turn.content
        yield from _tool_texts(turn)


def _tool_texts(turn: Turn) -> Iterator[str]:
    for use in turn.tool_uses:
        yield text(use.get("name")) + json.dumps(use.get("input"), ensure_ascii=False)
    for result in turn.tool_results:
        for part in items(result.get("content")):
            yield json.dumps(part, ensure_ascii=False)
