"""About how many tokens a prompt is."""

from base64 import b64encode
from dataclasses import replace

from kiro_mcp.chat import ChatRequest, ImagePart, Message, ModelInfo, TextPart
from kiro_mcp.wire.request import (
    TOKENS_PER_IMAGE,
    Envelope,
    draft_payload,
)

ENVELOPE = Envelope(origin="KIRO_CLI", profile_arn="")
PICTURE = ImagePart(format="png", data=b64encode(b"\x89PNG\r\n\x1a\n" + bytes(100_000)).decode())


def asked(*parts: TextPart | ImagePart) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", parts=parts),), conversation_id="")


def test_tokens_are_estimated_by_text_and_by_image() -> None:
    """About four bytes to a token; an image's bytes say nothing of its tokens."""
    payload = draft_payload(asked(TextPart(text="ü" * 2_000), PICTURE), ENVELOPE)
    size = payload.size_bytes
    expected = (size - len(PICTURE.data)) // 4 + TOKENS_PER_IMAGE
    assert payload.estimated_tokens == expected
    assert 1_000 < expected - TOKENS_PER_IMAGE < 1_100


def test_a_prompt_that_may_not_fit_is_warned_of_and_not_refused() -> None:
    """The estimate, and the listed window, can be wrong."""
    request = asked(TextPart(text="x" * 400))
    tokens = draft_payload(request, ENVELOPE).estimated_tokens
    for window, is_warned in ((tokens, False), (tokens - 1, True), (None, False)):
        model = ModelInfo(id="auto", name="M", context_window=window)
        warnings = draft_payload(replace(request, model_info=model), ENVELOPE).warnings
        said = f"The prompt is about {tokens} tokens, and auto reads {window}:"
        assert [one.startswith(said) for one in warnings] == [True] * is_warned
    payload = draft_payload(asked(TextPart(text="x" * 1_000_000)), ENVELOPE)
    assert payload.warnings == ()
    payload = draft_payload(asked(TextPart(text="x" * 4_100_000)), ENVELOPE)
    assert len(payload.warnings) == 1
    assert payload.findings == ()
