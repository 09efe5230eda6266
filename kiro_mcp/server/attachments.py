"""Reads the images and text files that a call names into parts of its message.

A path is read only if it is in a folder that the user has opened, after links are resolved. A
person who can make a model call a tool must not be able to read the whole disk.
"""

import errno
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from kiro_mcp.chat import ImagePart, JsonObject, TextPart
from kiro_mcp.client.off_loop import SMALL, off_loop
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.files import read_regular_file
from kiro_mcp.wire.images import (
    MAX_IMAGE_BYTES,
    image_from_base64,
    image_from_bytes,
    image_from_url,
    is_image_base64,
)
from kiro_mcp.wire.json_values import is_larger, json_text, plain_json
from kiro_mcp.wire.messages import ContentReader, document_text

MAX_PATH_CHARACTERS: Final = 4096

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""The largest text file: about a million tokens, the most that any model reads."""

MAX_READERS: Final = 8
"""How many files are read at once. A disk that does not answer, such as a network folder without
its server, blocks only these threads, not those that tokens and the store need."""

_readers: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("kiro_mcp_attachment_readers")


def reader_threads() -> anyio.CapacityLimiter:
    """Return the limiter for the threads that read files."""
    readers = _readers.get(None)
    if readers is None:
        readers = anyio.CapacityLimiter(MAX_READERS)
        _readers.set(readers)
    return readers


async def read_image(given: str | JsonObject, roots: Sequence[str], location: str) -> ImagePart:
    """Return an image from a data URL, base64, a path, or an image block of any API.

    Args:
        given: What the caller wrote.
        roots: The folders under which a path may be read.
        location: The argument's name, for errors.

    Raises:
        InvalidRequest: It is none of these, may not be read, or the service refuses such images.
    """
    read = None
    if isinstance(given, dict):
        read = partial(_image_from_block, given, location)
    elif is_image_base64(given):
        read = partial(image_from_base64, given, location=location)
    elif ":" in given[:12] and not _is_path(given):
        read = partial(image_from_url, given, location=location)
    if read is not None:
        return await off_loop(read, is_large=is_larger(given, SMALL))
    assert isinstance(given, str)
    data = await _read_in_thread(given, roots, location, MAX_IMAGE_BYTES)
    return image_from_bytes(data, location=location)


async def read_text_file(given: str, roots: Sequence[str], location: str) -> TextPart:
    """Return a text file with its name. The arguments are as in `read_image`.

    Raises:
        InvalidRequest: It may not be read, is too large, or is not UTF-8 text.
    """
    data = await _read_in_thread(given, roots, location, MAX_FILE_BYTES)
    try:
        return document_text(Path(given).name, data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{location} is not UTF-8 text: {quoted(given)}.", next_step="Attach text files only."
        ) from None


async def _read_in_thread(given: str, roots: Sequence[str], location: str, limit: int) -> bytes:
    def read() -> bytes:
        try:
            data = read_regular_file(_allowed(given, roots, location), limit + 1)
        except OSError as error:
            raise InvalidRequest(
                f"{location} cannot be read: {quoted(given)} ({error.strerror}).",
                next_step="Check the path.",
            ) from None
        if len(data) > limit:
            raise InvalidRequest(
                f"{location} is larger than {limit} bytes: {quoted(given)}.",
                next_step="Attach the part that matters.",
            )
        return data

    return await anyio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=reader_threads())


def _allowed(given: str, roots: Sequence[str], location: str) -> Path:
    if len(given) <= MAX_PATH_CHARACTERS:  # Resolving a million folders would take hours.
        path = Path(os.path.expanduser(given))
        try:
            resolved = Path(os.path.realpath(path))
        except ValueError:  # A NUL, or half of a surrogate pair.
            raise OSError(errno.EINVAL, "no file can have this name") from None
        if path.is_absolute() and any(resolved.is_relative_to(os.path.realpath(r)) for r in roots):
            return resolved
    shown = (root if Path(root).is_dir() else f"{root}, which does not exist" for root in roots)
    raise InvalidRequest(
        f"{location} names a path that may not be read: {quoted(given)}"
        f" (open folders: {'; '.join(shown) or 'none'}).",
        next_step="Give an absolute path in a folder that KIRO_MCP_ROOTS opens"
        " where this server is configured, or the content itself.",
    )


def _is_path(given: str) -> bool:
    r"""Whether text with a colon is a Windows path, such as `C:\a.png`, rather than a URL."""
    return len(given) > 2 and given[1] == ":" and given[2] in "\\/"


def _image_from_block(given: JsonObject, location: str) -> ImagePart:
    """Read an image block of MCP, OpenAI or Anthropic, with or without its `type`."""
    plain = plain_json({"type": "image", **given})
    parts = ContentReader().parts(plain, location)
    images = [part for part in parts if isinstance(part, ImagePart)]
    if len(images) == 1 == len(parts):
        return images[0]
    raise InvalidRequest(
        f"{location} is not an image: {quoted(json_text(plain))}.",
        next_step="Send the image's bytes as base64, or as a data URL.",
    )
