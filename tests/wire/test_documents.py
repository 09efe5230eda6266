"""Documents as text."""

from base64 import b64encode

import pytest

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.content import document_text, text_from_base64, text_from_url


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "<document>\nwords\n</document>"),
        ("a.md", '<document name="a.md">\nwords\n</document>'),
        ('a"\nb', '<document name="a\' b">\nwords\n</document>'),
    ],
)
def test_a_document_is_framed_by_its_name(name: str, expected: str) -> None:
    """The model can tell it from the prompt."""
    assert document_text(name, "words").text == expected


def test_encoded_text_is_decoded() -> None:
    encoded = b64encode("\ufeffgrüß\0".encode()).decode()
    assert text_from_base64(f"{encoded[:4]}\n{encoded[4:]}", location="it") == "grüß"
    assert text_from_url(f"data:text/plain;base64,{encoded}", location="it") == "grüß"
    assert text_from_url("data:text/plain,a%20b", location="it") == "a b"


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7 words", b"\xff\xfe\x00w"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    """The service's request model has no documents."""
    with pytest.raises(InvalidRequest, match="without readable text"):
        text_from_base64(b64encode(data).decode(), location="it")


@pytest.mark.parametrize("encoded", ["???", "YQ", "ü" * 4, "YWJj!"])
def test_what_is_no_base64_is_refused(encoded: str) -> None:
    with pytest.raises(InvalidRequest, match="without readable text"):
        text_from_base64(encoded, location="it")
