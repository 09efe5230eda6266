"""Pictures in any form, as the service takes them."""

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.chat import ImageFormat
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.images import (
    MAX_IMAGE_BYTES,
    decoded_size,
    image_from_base64,
    image_from_bytes,
    image_from_url,
    size_warning,
    sniff_format,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(250, 256)) * 3
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0JFIF", "jpeg"),
        (b"GIF87a..", "gif"),
        (b"GIF89a..", "gif"),
        (WEBP, "webp"),
    ],
)
def test_the_format_is_read_from_the_bytes(data: bytes, kind: ImageFormat) -> None:
    """Callers often name a wrong type, such as `image/jpg`."""
    assert sniff_format(data) == kind
    assert image_from_bytes(data, location="it").format == kind


@pytest.mark.parametrize(
    "data", [b"", b"<svg/>", b"BM\0\0", b"RIFF\x10\0\0\0WAVE", b"II*\0", PNG[1:]]
)
def test_another_format_is_refused_with_its_location(data: bytes) -> None:
    """The service's schema."""
    with pytest.raises(InvalidRequest, match=r"images\[3\] is not a PNG, JPEG, GIF or WebP"):
        image_from_bytes(data, location="images[3]")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b64encode(PNG).decode(), id="plain"),
        pytest.param(b64encode(PNG).decode().rstrip("="), id="unpadded"),
        pytest.param(urlsafe_b64encode(PNG).decode(), id="url-safe"),
        pytest.param("\n".join(b64encode(PNG).decode()), id="wrapped"),
    ],
)
def test_base64_of_any_form_is_sent_in_one_form(text: str) -> None:
    """Equal images give equal bytes for the cache."""
    assert image_from_base64(text, location="it").data == b64encode(PNG).decode()


@pytest.mark.parametrize("text", ["not base64!", "a", "ü" * 8, f"{b64encode(PNG).decode()}!"])
def test_a_text_that_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="it is not base64"):
        image_from_base64(text, location="it")


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{b64encode(PNG).decode()}",
        f"DATA:image/jpg;charset=x;BASE64,{b64encode(PNG).decode()}",
        f"data:;base64,{quote(b64encode(PNG).decode(), safe='')}",
        f"data:image/png,{quote(PNG)}",
    ],
)
def test_a_data_url_is_read_whatever_type_it_names(url: str) -> None:
    """RFC 2397."""
    image = image_from_url(url, location="it")
    assert (image.format, image.data) == ("png", b64encode(PNG).decode())


@pytest.mark.parametrize("url", ["https://example.com/a.png?token=s3cret", "file:///etc/passwd"])
def test_a_url_is_refused_without_repeating_it(url: str) -> None:
    """The service takes only bytes, and a URL can hold a secret."""
    with pytest.raises(InvalidRequest, match="is a URL") as caught:
        image_from_url(url, location="it")
    assert "s3cret" not in str(caught.value)
    assert "data URL" in caught.value.next_step


def test_an_image_may_be_as_large_as_the_limit_and_no_larger() -> None:
    """The limit of the service's official client: 10 MiB."""
    largest = PNG + bytes(MAX_IMAGE_BYTES - len(PNG))
    image = image_from_bytes(largest, location="it")
    assert decoded_size(image.data) == MAX_IMAGE_BYTES
    assert image_from_base64(image.data, location="it") == image
    with pytest.raises(InvalidRequest, match=f"over the service's limit of {MAX_IMAGE_BYTES}"):
        image_from_bytes(largest + b"\0", location="it")
    with pytest.raises(InvalidRequest, match="over the service's limit"):
        image_from_base64("A" * (MAX_IMAGE_BYTES * 4 // 3 + 8), location="it")


@pytest.mark.parametrize("size", range(1, 8))
def test_the_decoded_size_is_computed_from_the_base64(size: int) -> None:
    assert decoded_size(b64encode(bytes(size)).decode()) == size


def test_an_image_does_not_show_its_bytes() -> None:
    """Logs stay readable."""
    assert b64encode(PNG).decode() not in repr(image_from_bytes(PNG, location="it"))


def png(width: int, height: int) -> bytes:
    return PNG[:8] + b"\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4)


def jpeg(width: int, height: int) -> bytes:
    metadata = b"\xff\xe1" + (60_002).to_bytes(2) + bytes(60_000)
    frame = b"\xff\xc2\0\x0b\x08" + height.to_bytes(2) + width.to_bytes(2)
    return b"\xff\xd8" + metadata + b"\xff" + frame


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")


def webp(form: bytes, rest: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + form + rest


def webp_lossy(width: int, height: int) -> bytes:
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return webp(b"VP8 ", bytes(4) + b"\0\0\0\x9d\x01\x2a" + size)


def webp_lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return webp(b"VP8L", bytes(4) + b"\x2f" + bits.to_bytes(4, "little"))


def webp_extended(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(b"VP8X", bytes(8) + size)


@pytest.mark.parametrize("make", [png, jpeg, gif, webp_lossy, webp_lossless, webp_extended])
def test_an_image_with_too_many_pixels_gives_a_warning(make: Callable[[int, int], bytes]) -> None:
    """The models' own limit is 8,000 pixels a side; what the service does is not known."""
    encoded = [b64encode(make(*size)).decode() for size in ((9000, 20), (20, 9000), (8000, 8000))]
    wide, high, largest = map(size_warning, encoded)
    assert "9000 x 20 pixels" in wide
    assert "20 x 9000 pixels" in high
    assert "8000" in wide
    assert largest == ""


def test_an_image_of_more_than_five_megabytes_gives_a_warning() -> None:
    """The models' own limit counts the base64."""
    base64 = b64encode(png(1, 1) + bytes(3_932_160)).decode()
    assert "5242880" in size_warning(base64)
    assert size_warning(base64[: 5 * 1024 * 1024]) == ""


@given(
    data=st.binary(max_size=64), head=st.sampled_from([b"", PNG[:8], b"\xff\xd8\xff", WEBP[:12]])
)
def test_a_broken_image_gives_no_warning(data: bytes, head: bytes) -> None:
    """The size is only needed for a warning."""
    size_warning(b64encode(head + data).decode())
    size_warning("not base64")


@given(st.integers(0, 9), st.integers(0, 200_000))
@settings(max_examples=30)
def test_all_percent_signs_of_a_large_data_url_are_decoded(start: int, size: int) -> None:
    encoded = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(size)).decode()
    escaped = encoded[:start] + "".join(f"%{ord(letter):02X}" for letter in encoded[start:])
    image = image_from_url(f"data:image/png;base64,{escaped}", location="it")
    assert image.data == encoded
