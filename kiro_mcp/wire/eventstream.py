"""Decodes the bytes of an AWS event stream into frames, and encodes frames.

This is the first stage of reading an answer; `kiro_mcp.wire.events` reads the frames.
Source of truth: https://smithy.io/2.0/aws/amazon-eventstream.html

A stream is a sequence of frames without separators. All integers are big-endian. Both checksums
are the CRC-32 of zlib::

    offset  bytes           field
    0       4               total_length: of the whole frame, with these four bytes
    4       4               headers_length
    8       4               prelude checksum: over bytes 0 to 7
    12      headers_length  headers
    ...     the rest        payload
    -4      4               message checksum: over all bytes before it

    A header is   name length (1 byte, 1 to 255) | name, UTF-8 | type (1 byte) | value

    type  value                    in Python     type  value                    in Python
    0     none                     True          5     8 bytes, signed          Number
    1     none                     False         6     length (2 bytes), bytes  bytes
    2     1 byte, signed           Number        7     length (2 bytes), UTF-8  str
    3     2 bytes, signed          Number        8     8 bytes, signed          Number
    4     4 bytes, signed          Number        9     16 bytes                 UUID

Nothing marks the beginning of a frame. So the decoder cannot continue after a fault: it keeps the
frames before it and stops.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import Final, TypeAlias
from uuid import UUID
from zlib import crc32

from kiro_mcp.errors import FrameError

MAX_PAYLOAD_BYTES: Final = 24 * 1024 * 1024
"""The largest payload of a frame, according to the specification."""
MAX_HEADERS_BYTES: Final = 128 * 1024
"""The largest block of headers, according to the specification."""
MAX_KNOWN_PRELUDES: Final = 1024
"""How many verified preludes are cached. Frames of the same length and type share one."""
MAX_KNOWN_BLOCKS: Final = 64
"""How many parsed blocks of headers are cached. Each of the service's event types has one."""
MAX_KNOWN_BLOCK_BYTES: Final = 1024
"""The largest block that is cached. Usual ones have 90 bytes; a hostile one could be huge."""

_PRELUDE: Final = Struct(">III")
_PRELUDE_BYTES: Final = 12
_LENGTHS: Final = Struct(">II")
_CHECKED_BYTES: Final = 8
"""The bytes that the prelude's checksum covers: both lengths."""
_CHECKSUM: Final = Struct(">I")
_CHECKSUM_BYTES: Final = 4
_OVERHEAD_BYTES: Final = _PRELUDE_BYTES + _CHECKSUM_BYTES
"""The length of the shortest frame, without headers and payload."""
_LENGTH: Final = Struct(">H")
_MAX_NAME_BYTES: Final = 0xFF

_TRUE, _FALSE, BYTE, SHORT, INTEGER, LONG, _BYTES, _STRING, TIMESTAMP, _UUID = range(10)
_NUMBERS: Final = {
    BYTE: Struct(">b"),
    SHORT: Struct(">h"),
    INTEGER: Struct(">i"),
    LONG: Struct(">q"),
    TIMESTAMP: Struct(">q"),
}
_UUID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Number:
    """A header value that is a number of a fixed size."""

    kind: int
    """Its type: `BYTE`, `SHORT`, `INTEGER`, `LONG` or `TIMESTAMP`."""
    value: int
    """A timestamp is in milliseconds since 1970-01-01 UTC; it is negative before that."""


HeaderValue: TypeAlias = bool | bytes | str | Number | UUID
Headers: TypeAlias = Mapping[str, HeaderValue]


# Neither frozen nor keyword-only, because both would double the cost of each frame.
@dataclass(slots=True)
class Frame:
    """A frame with verified checksums. Do not change it, because frames share their headers."""

    headers: Headers
    payload: bytes


class _BadFrameError(ValueError):
    """A frame cannot be read, for the reason in the error's text."""


class FrameDecoder:
    """Decodes the bytes of one stream, cut anywhere, into frames.

    It buffers at most one incomplete frame. Its work is linear in the number of bytes.
    """

    def __init__(
        self,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        max_headers_bytes: int = MAX_HEADERS_BYTES,
    ) -> None:
        self.fault: FrameError | None = None
        """The stream's fault, after which all further data is ignored."""
        self._max_payload_bytes = max_payload_bytes
        self._max_headers_bytes = max_headers_bytes
        self._known_preludes: dict[bytes, tuple[int, int, int]] = {}
        self._known_headers: dict[bytes, Headers] = {}
        self._chunks: list[bytes] = []
        self._pending_bytes = 0
        self._needed_bytes = _PRELUDE_BYTES
        self._offset = 0
        self._frame_count = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes, including those before a fault.

        Never raises: it sets `fault`, which `close` raises.
        """
        if self.fault is not None or not data:
            return []
        self._chunks.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes < self._needed_bytes:
            return []
        # Chunks are joined only when a whole prelude or a whole frame has arrived. So each byte is
        # copied a fixed number of times, even if the chunks are small.
        buffer = b"".join(self._chunks)
        frames: list[Frame] = []
        used_bytes = self._decode(buffer, frames)
        self._frame_count += len(frames)
        self._offset += used_bytes
        self._pending_bytes = len(buffer) - used_bytes
        self._chunks = [buffer[used_bytes:]] if self._pending_bytes else []
        return frames

    def close(self) -> None:
        """End the stream.

        Raises:
            FrameError: The stream is faulty, or it ended inside a frame.
        """
        if self.fault is None and self._pending_bytes:
            self.fault = FrameError(
                f"it ended inside a frame, with {self._pending_bytes} bytes left over",
                offset=self._offset,
                frame_count=self._frame_count,
            )
        if self.fault is not None:
            raise self.fault

    def _decode(self, buffer: bytes, frames: list[Frame]) -> int:
        """Append the complete frames in `buffer` to `frames`; return their size in bytes."""
        # This is the hot path, so it is one loop with local names. Slices of bytes are copies, but
        # for small frames they are faster than a memoryview.
        known_preludes, known_headers = self._known_preludes.get, self._known_headers.get
        read_checksum, add_frame = _CHECKSUM.unpack_from, frames.append
        start, size = 0, len(buffer)
        try:
            while size - start >= _PRELUDE_BYTES:
                raw_prelude = buffer[start : start + _PRELUDE_BYTES]
                prelude = known_preludes(raw_prelude) or self._read_prelude(raw_prelude)
                total_length, headers_length, prelude_checksum = prelude
                end = start + total_length
                if end > size:
                    self._needed_bytes = total_length
                    return start
                payload_end = end - _CHECKSUM_BYTES
                # The message's checksum continues from the prelude's, of the first bytes.
                checksum = crc32(buffer[start + _CHECKED_BYTES : payload_end], prelude_checksum)
                if checksum != read_checksum(buffer, payload_end)[0]:
                    raise _BadFrameError("the checksum of a frame does not match")
                headers_start = start + _PRELUDE_BYTES
                payload_start = headers_start + headers_length
                raw_headers = buffer[headers_start:payload_start]
                headers = known_headers(raw_headers)
                if headers is None:
                    is_small = headers_length <= MAX_KNOWN_BLOCK_BYTES
                    headers = (_decode_shared_headers if is_small else _decode_headers)(raw_headers)
                    if is_small and len(self._known_headers) < MAX_KNOWN_BLOCKS:
                        self._known_headers[raw_headers] = headers
                add_frame(Frame(headers, buffer[payload_start:payload_end]))
                start = end
        except _BadFrameError as error:  # The fault is not raised: its traceback holds the buffer.
            self.fault = FrameError(
                str(error),
                offset=self._offset + start,
                frame_count=self._frame_count + len(frames),
            )
            return size
        self._needed_bytes = _PRELUDE_BYTES
        return start

    def _read_prelude(self, raw: bytes) -> tuple[int, int, int]:
        total_length, headers_length, checksum = prelude = _PRELUDE.unpack(raw)
        if crc32(raw[:_CHECKED_BYTES]) != checksum:
            raise _BadFrameError("the checksum of a prelude does not match")
        payload_length = total_length - headers_length - _OVERHEAD_BYTES
        if payload_length < 0:
            raise _BadFrameError(
                f"a frame of {total_length} bytes cannot hold {headers_length} of headers"
            )
        if headers_length > self._max_headers_bytes:
            raise _BadFrameError(
                f"{headers_length} bytes of headers; our limit is {self._max_headers_bytes}"
            )
        if payload_length > self._max_payload_bytes:
            raise _BadFrameError(
                f"{payload_length} bytes of payload; our limit is {self._max_payload_bytes}"
            )
        if len(self._known_preludes) < MAX_KNOWN_PRELUDES:
            self._known_preludes[raw] = prelude
        return prelude


def encode_frame(frame_headers: Headers, payload: bytes) -> bytes:
    """Return the bytes of a frame with these headers, in this order, and this payload.

    Raises:
        ValueError: A name, a value or the frame is larger than the format allows.
    """
    headers = b"".join(_encode_header(name, value) for name, value in frame_headers.items())
    if len(headers) > MAX_HEADERS_BYTES:
        raise ValueError(f"{len(headers)} bytes of headers; the limit is {MAX_HEADERS_BYTES}")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    total_length = len(headers) + len(payload) + _OVERHEAD_BYTES
    lengths = _LENGTHS.pack(total_length, len(headers))
    content = b"".join((lengths, _CHECKSUM.pack(crc32(lengths)), headers, payload))
    return content + _CHECKSUM.pack(crc32(content))


# --- headers ------------------------------------------------------------------------------


def _decode_headers(raw: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    position = 0
    while position < len(raw):
        if not raw[position]:
            raise _BadFrameError("a header has no name")
        raw_name, position = _take(raw, position + 1, raw[position])
        name = _decode_text(raw_name)
        if name in headers:
            raise _BadFrameError(f"the header {name!r} appears twice")
        kind, position = _take(raw, position, 1)
        headers[name], position = _decode_value(raw, position, kind[0])
    return headers


_decode_shared_headers: Final = lru_cache(MAX_KNOWN_BLOCKS)(_decode_headers)
"""Shared by all streams, because a short answer has few frames of each type."""


def _decode_value(raw: bytes, position: int, kind: int) -> tuple[HeaderValue, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, position
    if kind in _NUMBERS:
        data, position = _take(raw, position, _NUMBERS[kind].size)
        return Number(kind, *_NUMBERS[kind].unpack(data)), position
    if kind in (_BYTES, _STRING):
        length, position = _take(raw, position, _LENGTH.size)
        data, position = _take(raw, position, *_LENGTH.unpack(length))
        return data if kind == _BYTES else _decode_text(data), position
    if kind == _UUID:
        data, position = _take(raw, position, _UUID_BYTES)
        return UUID(bytes=data), position
    raise _BadFrameError(f"a header has the unknown type {kind}")


def _take(raw: bytes, position: int, size: int) -> tuple[bytes, int]:
    """Return the next `size` bytes of a block of headers, and the position after them."""
    end = position + size
    if end > len(raw):
        raise _BadFrameError("a header is longer than the block that holds it")
    return raw[position:end], end


def _decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _BadFrameError("a header is not UTF-8") from error


def _encode_header(name: str, value: HeaderValue) -> bytes:
    raw_name = _encode_text(name)
    if not 0 < len(raw_name) <= _MAX_NAME_BYTES:
        raise ValueError(f"the header name {name!r} is not 1 to {_MAX_NAME_BYTES} bytes long")
    try:
        return bytes((len(raw_name),)) + raw_name + _encode_value(value)
    except (StructError, KeyError, AttributeError) as error:  # A plain int has no size.
        raise ValueError(f"the header {name!r} cannot hold {value!r:.80}") from error


def _encode_value(value: HeaderValue) -> bytes:
    match value:
        case bool():
            return bytes((_TRUE if value else _FALSE,))
        case bytes():
            return bytes((_BYTES,)) + _LENGTH.pack(len(value)) + value
        case str():
            raw = _encode_text(value)
            return bytes((_STRING,)) + _LENGTH.pack(len(raw)) + raw
        case UUID():
            return bytes((_UUID,)) + value.bytes
        case _:
            return bytes((value.kind,)) + _NUMBERS[value.kind].pack(value.value)


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the header text {text!r:.80} is not Unicode") from error
