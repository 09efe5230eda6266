"""Turns an image in any form that a caller may send into an `ImagePart` for the service.

The service accepts PNG, JPEG, GIF and WebP as bytes, not as URLs: at most `MAX_IMAGES` in a request
and at most `MAX_IMAGE_BYTES` each (the limits of its official client). The format is read from the
bytes, because the type that a caller names is often wrong.
"""

from base64 import b64decode, b64encode
from typing import Final
from urllib.parse import unquote_to_bytes

from kiro_mcp.chat import ImageFormat, ImagePart
from kiro_mcp.errors import InvalidRequest

MAX_IMAGES: Final = 10
"""The most images in one request, its history included."""

MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024
"""The largest image, decoded."""

SAFE_BASE64_BYTES: Final = 5 * 1024 * 1024
SAFE_PIXELS: Final = 8_000
"""The models' own limits: bytes of base64, and the longer side. The service may scale larger images
down, so they only give a warning."""

_PIECE_CHARACTERS: Final = 64 * 1024

_HEAD_CHARACTERS: Final = 256 * 1024
"""How much base64 is decoded to find an image's size: a JPEG may begin with long metadata."""

IMAGE_FORMATS: Final[tuple[ImageFormat, ...]] = ("gif", "jpeg", "png", "webp")

_BEGINNINGS: Final[tuple[tuple[bytes, ImageFormat], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
)
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SNIFFED_CHARACTERS: Final = 200
"""How many characters of base64 are enough to tell an image's format, line breaks included."""


def sniff_format(data: bytes) -> ImageFormat | None:
    """Return the format of an image; None if the service does not take it."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), None)


def is_image_base64(text: str) -> bool:
    """Whether a text is the base64 of an image, by its first bytes.

    The base64 of each JPEG begins with `/9j/`, like a path; but a path to one has a dot.
    """
    head = "".join(text[:_SNIFFED_CHARACTERS].split()).translate(_URL_SAFE)
    try:
        return sniff_format(b64decode(head[: len(head) // 4 * 4], validate=True)) is not None
    except ValueError:  # binascii.Error is one too
        return False


def image_from_bytes(data: bytes, *, location: str) -> ImagePart:
    """Make an image from the bytes of its file. An error names its `location`.

    Raises:
        InvalidRequest: It is too large, or in a format that the service does not accept.
    """
    _require_size(len(data), location)
    return ImagePart(format=_format_of(data, location), data=b64encode(data).decode("ascii"))


def _format_of(data: bytes, location: str) -> ImageFormat:
    image_format = sniff_format(data)
    if image_format is None:
        raise InvalidRequest(
            f"{location} is not a PNG, JPEG, GIF or WebP image (image_format).",
            next_step="Convert it to one of these.",
        )
    return image_format


def image_from_base64(text: str, *, location: str) -> ImagePart:
    """Make an image from base64: plain or URL-safe, with or without line breaks and padding.

    Raises:
        InvalidRequest: It is not base64, or not an image that the service accepts.
    """
    data = text.encode("ascii", "replace").rstrip(b"=")
    # Not decoded: for ten large images that would take longer than all else that is done with them.
    others = data.translate(None, _ALPHABET)
    if is_changed := bool(others):
        data = data.translate(_URL_SAFE, b" \t\r\n\v\f").rstrip(b"=")
        others = data.translate(None, _ALPHABET)
    _require_size(len(data) * 3 // 4, location)
    if len(data) % 4 == 1 or others:
        raise InvalidRequest(
            f"{location} is not base64 (image_base64).",
            next_step="Send the image's bytes as base64, or as a data URL.",
        )
    padding = "=" * (-len(data) % 4)
    if is_changed or len(text) != len(data) + len(padding):
        text = data.decode("ascii") + padding
    return ImagePart(format=_format_of(b64decode(text[:_SNIFFED_CHARACTERS]), location), data=text)


def image_from_url(url: str, *, location: str) -> ImagePart:
    """Make an image from a data URL.

    Raises:
        InvalidRequest: It is not a data URL, or not an image that the service accepts.
    """
    if url[:5].lower() != "data:":
        raise InvalidRequest(
            f"{location} is a URL, and the service takes only an image's bytes (image_address).",
            next_step="Download it and send it as a data URL or as base64.",
        )
    header, _, body = url[5:].partition(",")
    if header.lower().endswith(";base64"):
        return image_from_base64(
            _unquoted(body).decode("latin-1") if "%" in body else body, location=location
        )
    return image_from_bytes(_unquoted(body), location=location)


def _unquoted(text: str) -> bytes:
    """Decode percent signs in pieces: a large text at once would block all threads for 200 ms."""
    pieces: list[bytes] = []
    start = 0
    while start < len(text):
        end = start + _PIECE_CHARACTERS
        if (cut := text.find("%", end - 2, end)) >= 0:  # What follows it is in the next piece.
            end = cut
        pieces.append(unquote_to_bytes(text[start:end]))
        start = end
    return b"".join(pieces)


def is_base64(text: str) -> bool:
    """Whether a text is base64 with its padding."""
    if len(text) % 4 or not text.isascii():
        return False
    data = text.encode("ascii")
    data = data[:-2] + data[-2:].rstrip(b"=")
    return not data.translate(None, _ALPHABET)


def size_warning(encoded: str) -> str:
    """Return which limit of the models an image exceeds, as a predicate; "" if none."""
    if len(encoded) > SAFE_BASE64_BYTES:
        return f"is {len(encoded)} bytes of base64, and models take {SAFE_BASE64_BYTES}"
    try:
        size = _pixels(b64decode(encoded[:_HEAD_CHARACTERS]))
    except ValueError:  # binascii.Error is one too
        return ""
    if max(size) > SAFE_PIXELS:
        return f"is {size[0]} x {size[1]} pixels, and models take {SAFE_PIXELS} a side"
    return ""


def _pixels(data: bytes) -> tuple[int, int]:
    """Read width and height from an image's first bytes; zeros if they are not there."""
    kind = sniff_format(data)
    if kind == "png":
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if kind == "gif":
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if kind == "webp":
        return _webp_pixels(data)
    position = 2
    while kind == "jpeg" and data[position : position + 1] == b"\xff":
        marker = data[position + 1] if position + 1 < len(data) else 0
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # A frame's header.
            frame = data[position + 5 : position + 9]
            return int.from_bytes(frame[2:]), int.from_bytes(frame[:2])
        # A fill byte has no length; every other segment states its own.
        length = int.from_bytes(data[position + 2 : position + 4])
        position += 1 if marker == 0xFF else 2 + max(length, 2)
    return 0, 0


def _webp_pixels(data: bytes) -> tuple[int, int]:
    form = data[12:16]
    if form == b"VP8X":
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    if form == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (26, 28))
    return width & 0x3FFF, height & 0x3FFF


def decoded_size(encoded: str) -> int:
    """Return how many bytes padded base64 encodes."""
    return len(encoded) // 4 * 3 - encoded.count("=", -2)


def _require_size(size: int, location: str) -> None:
    if size > MAX_IMAGE_BYTES:
        raise InvalidRequest(
            f"{location} is {size} bytes, over the service's limit of {MAX_IMAGE_BYTES}"
            " (image_size).",
            next_step="Make it smaller.",
        )
