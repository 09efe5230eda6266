"""A document in any form a caller may have it -> text in front of the model.

Text between tags that name it is what every model reads; the service has a member for documents
too, but none of its official clients was seen to use it. What is no text, such as a PDF, is
refused.
"""

from base64 import b64decode
from urllib.parse import unquote_to_bytes

from kiro_mcp.chat import TextPart
from kiro_mcp.wire.findings import Finding
from kiro_mcp.wire.json_values import clean_text


def document_text(name: str, text: str) -> TextPart:
    """Frame a document's text, so that the model can tell it from the prompt."""
    label = name.replace('"', "'").replace("\n", " ")
    opening = f'<document name="{label}">' if label else "<document>"
    return TextPart(text=f"{opening}\n{text}\n</document>")


def text_from_base64(encoded: str, *, place: str) -> str:
    """Return the text that base64 stands for.

    Raises:
        InvalidRequest: It is no base64, or no text.
    """
    try:
        return _decoded(b64decode("".join(encoded.split()), validate=True), place)
    except ValueError:  # binascii.Error is one too
        raise _no_text(place) from None


def text_from_url(url: str, *, place: str) -> str:
    """Return the text that a data URL stands for.

    Raises:
        InvalidRequest: It holds no text.
    """
    header, _, body = url.partition(",")
    if header.lower().endswith(";base64"):
        return text_from_base64(body, place=place)
    return _decoded(unquote_to_bytes(body), place)


def _decoded(data: bytes, place: str) -> str:
    if not data or data.startswith(b"%PDF"):
        raise _no_text(place)
    try:
        return clean_text(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _no_text(place) from None


def _no_text(place: str) -> Exception:
    return Finding(
        rule="document_text",
        place=place,
        cause="is a document without readable text",
        cure="Extract its text (UTF-8) and send that, or its pages as images.",
    ).as_error()
