import json
import struct
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.errors import FrameError
from kiro_mcp.wire.eventstream import (
    BYTE,
    INTEGER,
    LONG,
    MAX_HEADERS_BYTES,
    MAX_KNOWN_BLOCKS,
    MAX_KNOWN_PRELUDES,
    MAX_PAYLOAD_BYTES,
    SHORT,
    TIMESTAMP,
    Frame,
    FrameDecoder,
    HeaderValue,
    Number,
    encode_frame,
)
from tests.support.frames import chunks, cut, raw_frame, text

VECTORS = Path(__file__).parent.parent / "vectors"
AWS: dict[str, Any] = json.loads((VECTORS / "event-stream.json").read_text("utf-8"))
CAPTURE: dict[str, Any] = json.loads((VECTORS / "kiro-capture.json").read_text("utf-8"))
VALID = [bytes.fromhex(vector["hex"]) for vector in AWS["valid"]]
INVALID = [bytes.fromhex(vector["hex"]) for vector in AWS["invalid"]]
CAPTURED = [bytes.fromhex(frame) for frame in CAPTURE["frames_hex"]]
GOOD = text("ok")

ALL_TYPES: dict[str, HeaderValue] = {
    "true": True,
    "false": False,
    "byte": Number(BYTE, -2),
    "short": Number(SHORT, -300),
    "integer": Number(INTEGER, -70_000),
    "long": Number(LONG, -(2**40)),
    "bytes": b'{"content":"\\{}',
    "string": "déjà vu",
    "timestamp": Number(TIMESTAMP, 1_700_000_000_123),
    "uuid": UUID(bytes=bytes(range(16))),
    ":event-type": "assistantResponseEvent",
}


def decode(*pieces: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    frames = [frame for piece in pieces for frame in decoder.feed(piece)]
    decoder.close()
    return frames


def fault_of(data: bytes, decoder: FrameDecoder | None = None) -> FrameError:
    """The fault of data that has one before its end."""
    decoder = decoder or FrameDecoder()
    decoder.feed(data)
    assert decoder.fault is not None
    return decoder.fault


def plain(value: HeaderValue) -> object:
    """A header value as the vectors' file writes it."""
    match value:
        case Number():
            return value.value
        case UUID():
            return {"bytes": value.bytes.hex()}
        case bytes():
            return {"bytes": value.hex()}
        case _:
            return value


# --- what is valid ------------------------------------------------------------------------


@pytest.mark.parametrize("vector", AWS["valid"], ids=range(len(VALID)))
def test_valid_vector_decodes_to_its_headers_and_payload(vector: dict[str, Any]) -> None:
    """Byte vectors of another implementation of the format."""
    (frame,) = decode(bytes.fromhex(vector["hex"]))
    assert {name: plain(value) for name, value in frame.headers.items()} == vector["headers"]
    assert frame.payload == bytes.fromhex(vector["payload_hex"])


@pytest.mark.parametrize("data", [*VALID, *CAPTURED])
def test_frame_cut_anywhere_is_the_same_frame(data: bytes) -> None:
    """The format's specification: a stream knows no chunks."""
    whole = decode(data)
    assert decode(*chunks(data, 1)) == whole
    for position in range(len(data) + 1):
        assert decode(*cut(data, [position])) == whole


@pytest.mark.parametrize("data", [*VALID, *CAPTURED])
def test_encoding_a_decoded_frame_gives_its_bytes(data: bytes) -> None:
    """The encoder is the exact inverse of the decoder."""
    (frame,) = decode(data)
    assert encode_frame(frame.headers, frame.payload) == data


@pytest.mark.parametrize("data", [*VALID, *CAPTURED])
def test_frame_is_delivered_when_bytes_of_the_next_follow(data: bytes) -> None:
    """A decoder holds back nothing that is complete."""
    decoder = FrameDecoder()
    assert len(decoder.feed(data + GOOD[:5])) == 1
    assert decoder.feed(GOOD[5:])[0].payload == b'{"content":"ok"}'


def test_captured_frames_hold_the_text_of_the_capture() -> None:
    """Observed: tests/vectors/kiro-capture.json."""
    frames = decode(b"".join(CAPTURED))
    assert [frame.headers[":event-type"] for frame in frames] == [
        *["assistantResponseEvent"] * 4,
        "toolUseEvent",
    ]
    assert "".join(json.loads(frame.payload)["content"] for frame in frames[:4]) == (
        "Immersive Weather Card: Native Web Design & Dynamic Effects{我"
    )


@pytest.mark.parametrize(
    ("pieces", "count", "leftover"),
    [
        pytest.param([], 0, 0, id="empty-body"),
        pytest.param([b"", b""], 0, 0, id="empty-chunks"),
        pytest.param([VALID[0]], 1, 0, id="smallest-frame"),
        pytest.param(list(chunks(GOOD, 1)), 1, 0, id="one-byte-at-a-time"),
        pytest.param([GOOD * 3 + GOOD[:5]], 3, 5, id="five-bytes-left-over"),
        pytest.param([GOOD[:11]], 0, 11, id="eleven-bytes-of-a-prelude"),
        pytest.param([GOOD[:-1]], 0, len(GOOD) - 1, id="all-but-the-last-byte"),
    ],
)
def test_close_says_how_many_bytes_are_left_over(
    pieces: list[bytes], count: int, leftover: int
) -> None:
    """The format's specification: a stream ends between frames."""
    decoder = FrameDecoder()
    assert sum(len(decoder.feed(piece)) for piece in pieces) == count
    if not leftover:
        decoder.close()
        return
    with pytest.raises(FrameError, match=f"with {leftover} bytes left over") as caught:
        decoder.close()
    assert (caught.value.offset, caught.value.frame_count) == (count * len(GOOD), count)


@pytest.mark.parametrize("cut", [3, 8, 11, 12, len(GOOD) - 4, len(GOOD) - 1])
def test_a_frame_is_emitted_with_its_last_byte(cut: int) -> None:
    """Cuts in the lengths, the checksums and the body."""
    decoder = FrameDecoder()
    assert decoder.feed(GOOD[:cut]) == []
    assert len(decoder.feed(GOOD[cut:])) == 1


def test_all_ten_header_types_keep_type_and_value() -> None:
    """The format's specification; a type that is lost cannot be encoded again."""
    (frame,) = decode(encode_frame(ALL_TYPES, b"{}"))
    assert dict(frame.headers) == ALL_TYPES
    assert [type(value) for value in frame.headers.values()] == [
        type(value) for value in ALL_TYPES.values()
    ]
    assert list(frame.headers) == list(ALL_TYPES)


def test_large_payload_in_small_chunks_is_one_frame() -> None:
    """3 MiB in chunks of 1 KiB."""
    payload = bytes(range(256)) * 12 * 1024
    (frame,) = decode(*chunks(encode_frame({}, payload), 1024))
    assert frame.payload == payload


def test_frames_of_one_kind_share_their_parsed_headers() -> None:
    """The service's blocks of headers are byte-identical for each type of event."""
    first, second = decode(text("a") + text("b"))
    assert first.headers is second.headers


def test_more_kinds_of_frame_than_are_remembered_still_decode() -> None:
    """What is remembered of a stream is bounded."""
    many = range(max(MAX_KNOWN_BLOCKS, MAX_KNOWN_PRELUDES) + 2)
    data = b"".join(encode_frame({"n": Number(LONG, number)}, bytes(number)) for number in many)
    frames = decode(data)
    assert [frame.headers["n"] for frame in frames] == [Number(LONG, number) for number in many]
    assert decode(data) == frames


def test_long_block_of_headers_decodes_each_time() -> None:
    """Long blocks are not remembered."""
    data = encode_frame({"h": "x" * 2000}, b"")
    first, second = decode(data * 2)
    assert first == second
    assert first.headers is not second.headers


# --- what is not --------------------------------------------------------------------------


@pytest.mark.parametrize("data", INVALID, ids=range(len(INVALID)))
def test_invalid_vector_is_a_fault(data: bytes) -> None:
    """Byte vectors of another implementation of the format."""
    decoder = FrameDecoder()
    assert decoder.feed(data) == []
    with pytest.raises(FrameError):
        decoder.close()


def flipped(position: int) -> bytes:
    data = bytearray(GOOD)
    data[position] ^= 1
    return bytes(data)


PRELUDE, MESSAGE = "checksum of a prelude", "checksum of a frame"
LENGTHS, HEADERS = "cannot hold", "header"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        pytest.param(flipped(2)[:12], PRELUDE, id="flip-in-length-told-from-the-prelude"),
        pytest.param(flipped(9), PRELUDE, id="flip-in-prelude-checksum"),
        pytest.param(flipped(-10), MESSAGE, id="flip-in-payload"),
        pytest.param(flipped(20), MESSAGE, id="flip-in-headers"),
        pytest.param(flipped(-1), MESSAGE, id="flip-in-last-byte"),
        pytest.param(raw_frame(b"", total_length=0)[:12], LENGTHS, id="length-zero"),
        pytest.param(raw_frame(b"", total_length=15)[:12], LENGTHS, id="length-fifteen"),
        pytest.param(
            raw_frame(b"", b"1234", headers_length=5)[:12], LENGTHS, id="headers-too-long"
        ),
        pytest.param(raw_frame(b"\x01a\x0a"), "unknown type 10", id="type-ten"),
        pytest.param(raw_frame(b"\x01a\xff"), "unknown type 255", id="type-255"),
        pytest.param(raw_frame(b"\x01a\x07\x00\xffab"), "longer than the block", id="string"),
        pytest.param(raw_frame(b"\x01a\x06\x00\x03ab"), "longer than the block", id="bytes"),
        pytest.param(raw_frame(b"\x01a\x07\x00"), "longer than the block", id="cut-length"),
        pytest.param(raw_frame(b"\x01a\x05\x00"), "longer than the block", id="cut-number"),
        pytest.param(raw_frame(b"\x01a\x09\x00"), "longer than the block", id="cut-uuid"),
        pytest.param(raw_frame(b"\x05a"), "longer than the block", id="cut-name"),
        pytest.param(raw_frame(b"\x01a"), "longer than the block", id="no-type"),
        pytest.param(raw_frame(b"\x01a\x00\x01a\x01"), "'a' appears twice", id="same-name"),
        pytest.param(raw_frame(b"\x00\x00"), "has no name", id="empty-name"),
        pytest.param(raw_frame(b"\x01\xff\x00"), "not UTF-8", id="name-not-utf8"),
        pytest.param(raw_frame(b"\x01a\x07\x00\x01\xc3"), "not UTF-8", id="value-not-utf8"),
        pytest.param(b"\xff" * 12, PRELUDE, id="seven-and-more-bytes-of-noise"),
    ],
)
def test_bad_frame_is_one_fault_after_the_good_frames_before_it(bad: bytes, words: str) -> None:
    """The format's specification; every other checksum is right, so only this can be told."""
    decoder = FrameDecoder()
    frames = decoder.feed(GOOD + GOOD + bad)
    fault = decoder.fault
    assert len(frames) == 2
    assert fault is not None
    assert words in str(fault)
    assert (fault.offset, fault.frame_count) == (2 * len(GOOD), 2)
    with pytest.raises(FrameError) as caught:
        decoder.close()
    assert caught.value is fault


def test_nothing_is_read_after_a_fault() -> None:
    """The format has no mark to find the next frame by."""
    decoder = FrameDecoder()
    assert len(decoder.feed(GOOD + b"\xff" * 7 + GOOD)) == 1
    fault = decoder.fault
    assert decoder.feed(GOOD) == []
    assert decoder.fault is fault


def test_offset_of_a_fault_counts_bytes_of_earlier_chunks() -> None:
    """It leads to the right place in a capture."""
    decoder = FrameDecoder()
    for piece in chunks(GOOD * 3 + flipped(-1), 7):
        decoder.feed(piece)
    assert decoder.fault is not None
    assert (decoder.fault.offset, decoder.fault.frame_count) == (3 * len(GOOD), 3)


@pytest.mark.parametrize(
    ("total_length", "headers_length", "words"),
    [
        pytest.param(MAX_PAYLOAD_BYTES + 17, 0, "of payload; our limit", id="payload"),
        pytest.param(
            MAX_HEADERS_BYTES + 17, MAX_HEADERS_BYTES + 1, "of headers; our limit", id="headers"
        ),
    ],
)
def test_a_length_over_a_limit_is_a_fault_before_the_frame_arrives(
    total_length: int, headers_length: int, words: str
) -> None:
    """The format's specification sets the limits for services; holding to them is ours."""
    frame = raw_frame(b"", total_length=total_length, headers_length=headers_length)
    assert words in str(fault_of(frame[:12]))


def test_a_higher_limit_lets_a_larger_payload_pass() -> None:
    """The specification asks clients not to enforce its limit."""
    data = raw_frame(b"", bytes(25 * 1024 * 1024))
    decoder = FrameDecoder(max_payload_bytes=32 * 1024 * 1024)
    (frame,) = decoder.feed(data)
    assert len(frame.payload) == 25 * 1024 * 1024
    assert str(MAX_PAYLOAD_BYTES) in str(fault_of(data))


def test_headers_up_to_the_limit_decode() -> None:
    """The format's specification: 128 KiB."""
    header = b"\x06" + struct.pack(">H", 65_530) + bytes(65_530)
    block = b"\x01a" + header + b"\x01b" + header
    assert len(block) <= MAX_HEADERS_BYTES
    assert len(decode(raw_frame(block))[0].headers) == 2
    assert "our limit" in str(fault_of(raw_frame(block), FrameDecoder(max_headers_bytes=1000)))


# --- encoding -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        pytest.param({"": True}, b"", id="empty-name"),
        pytest.param({"é" * 128: True}, b"", id="name-of-256-bytes"),
        pytest.param({"a\ud800": True}, b"", id="name-with-half-a-character"),
        pytest.param({"a": "\udfff"}, b"", id="value-with-half-a-character"),
        pytest.param({"a": "x" * 65_536}, b"", id="string-too-long"),
        pytest.param({"a": bytes(65_536)}, b"", id="bytes-too-long"),
        pytest.param({"a": 1}, b"", id="number-without-width"),
        pytest.param({"a": Number(BYTE, 128)}, b"", id="byte"),
        pytest.param({"a": Number(SHORT, -32_769)}, b"", id="short"),
        pytest.param({"a": Number(INTEGER, 2**31)}, b"", id="integer"),
        pytest.param({"a": Number(LONG, 2**63)}, b"", id="long"),
        pytest.param({"a": Number(TIMESTAMP, -(2**63) - 1)}, b"", id="timestamp"),
        pytest.param({"a": bytes(65_535), "b": bytes(65_535)}, b"", id="headers-too-long"),
        pytest.param({}, bytes(MAX_PAYLOAD_BYTES + 1), id="payload-too-long"),
    ],
)
def test_what_the_format_cannot_hold_is_not_encoded(
    headers: dict[str, HeaderValue], payload: bytes
) -> None:
    """The format's specification: the widths of its fields, and its limits for senders."""
    with pytest.raises(ValueError, match=r"header|payload"):
        encode_frame(headers, payload)


def test_name_of_255_bytes_and_empty_values_are_encoded() -> None:
    """The format's specification: the longest name; empty values as other codecs take them."""
    headers: dict[str, HeaderValue] = {"n" * 255: "", "b": b""}
    assert dict(decode(encode_frame(headers, b""))[0].headers) == headers


# --- whatever the bytes -------------------------------------------------------------------


def integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


VALUES: st.SearchStrategy[HeaderValue] = st.one_of(
    st.booleans(),
    integers(8).map(partial(Number, BYTE)),
    integers(16).map(partial(Number, SHORT)),
    integers(32).map(partial(Number, INTEGER)),
    integers(64).map(partial(Number, LONG)),
    integers(64).map(partial(Number, TIMESTAMP)),
    st.binary(max_size=40),
    st.text(max_size=20),
    st.uuids(),
)
NAMES = st.text(min_size=1, max_size=20)
FRAMES = st.builds(Frame, st.dictionaries(NAMES, VALUES, max_size=5), st.binary(max_size=200))


@settings(derandomize=True)
@given(st.lists(FRAMES, max_size=4), st.lists(st.integers(0, 10_000), max_size=6))
def test_decoding_what_was_encoded_gives_the_same_frames_however_cut(
    frames: list[Frame], positions: list[int]
) -> None:
    """Decode after encode is identity, and chunks make no difference."""
    data = b"".join(encode_frame(frame.headers, frame.payload) for frame in frames)
    decoded = decode(*cut(data, positions))
    assert decoded == frames
    again = b"".join(encode_frame(frame.headers, frame.payload) for frame in decoded)
    assert again == data


def outcome(pieces: list[bytes]) -> tuple[list[Frame], str]:
    """All frames, and the words of the fault."""
    decoder = FrameDecoder()
    frames = [frame for piece in pieces for frame in decoder.feed(piece)]
    try:
        decoder.close()
    except FrameError as fault:
        return frames, str(fault)
    return frames, ""


@settings(derandomize=True)
@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=6))
def test_random_bytes_raise_only_a_frame_error(data: bytes, positions: list[int]) -> None:
    """The only error that decoding raises, whatever the bytes and their chunks."""
    assert outcome(cut(data, positions)) == outcome([data])


@settings(derandomize=True, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_mutated_frames_raise_only_a_frame_error(
    mutations: list[tuple[int, int]], positions: list[int]
) -> None:
    """Frames before the fault are the same, whatever the chunks."""
    good = b"".join((encode_frame(ALL_TYPES, b"{}"), GOOD, *CAPTURED))
    data = bytearray(good)
    for position, mask in mutations:
        data[position % len(data)] ^= mask
    frames, fault = outcome(cut(bytes(data), positions))
    assert (frames, fault) == outcome([bytes(data)])
    assert frames == decode(good)[: len(frames)]


@settings(derandomize=True, max_examples=300)
@given(st.binary(max_size=60))
def test_random_headers_with_right_checksums_raise_only_a_frame_error(
    block: bytes,
) -> None:
    """A hostile sender can get its checksums right."""
    frames, fault = outcome([raw_frame(block)])
    assert bool(frames) is not bool(fault)
