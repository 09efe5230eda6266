"""The bytes of an answer: what is kept of them has no secret, and reads as before otherwise."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kiro_mcp.captures import masking
from kiro_mcp.captures.masking import MAX_HELD_BYTES, MAX_UNFRAMED_BYTES, StreamMask
from kiro_mcp.emulator import frames
from kiro_mcp.redaction import HIDDEN, redact
from kiro_mcp.wire.eventstream import FrameDecoder
from tests.support.frames import event, frame
from tests.support.replies import read
from tests.support.secrets import ACCESS, JWT, KEY, TEXTS


def masked(chunks: Iterable[bytes]) -> bytes:
    mask = StreamMask()
    return b"".join([*(mask.feed(chunk) for chunk in chunks), mask.close()])


def pieces_of(text: str, cuts: Sequence[int]) -> list[str]:
    """A text, cut at places."""
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


def spoken(pieces: Iterable[str]) -> bytes:
    return b"".join(event("assistantResponseEvent", {"content": piece}) for piece in pieces)


def payloads(data: bytes) -> list[bytes]:
    decoder = FrameDecoder()
    found = [one.payload for one in decoder.feed(data)]
    decoder.close()
    return found


CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@pytest.mark.parametrize(("text", "secret"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 24, 1000])
def test_a_secret_in_pieces_is_masked_as_in_one_piece(text: str, secret: str, size: int) -> None:
    """Observed: text comes in pieces of 1 to 40 bytes, and whoever reads it joins them."""
    data = spoken(frames.pieces(text, size)) + frames.ending()
    kept = masked([data])
    assert read(kept).text == redact(text)
    assert secret not in read(kept).text
    assert HIDDEN in read(kept).text


@pytest.mark.parametrize(("text", "secret"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 100_000])
def test_a_secret_is_masked_however_the_bytes_are_cut(
    text: str, secret: str, chunk_bytes: int
) -> None:
    """Ours: networks cut anywhere, also inside a secret."""
    data = spoken([text]) + frames.ending()
    chunks = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    assert read(masked(chunks)).text == redact(text)


@given(
    before=st.text(alphabet="aeko rB:\"'=\n", max_size=12),
    text=st.sampled_from([text for text, _ in TEXTS.values()]),
    after=st.text(alphabet="aeko rB:\"'=\n", max_size=12),
    cuts=CUTS,
)
@example(before="", text="ksk_0123456789", after="", cuts=[1, 2, 3, 4])
@example(before="a ", text="eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3.c2ln", after=" k", cuts=[3, 4, 30])
def test_masking_in_pieces_is_masking_the_whole(
    before: str, text: str, after: str, cuts: list[int]
) -> None:
    """Ours: where a piece ends must not matter."""
    whole = before + text + after
    kept = masked([spoken([piece]) for piece in pieces_of(whole, cuts)])
    assert read(kept + frames.ending()).text == redact(whole)


@given(st.lists(st.text(max_size=30), max_size=8), CUTS)
def test_what_has_no_secret_comes_out_as_it_went_in(texts: list[str], cuts: list[int]) -> None:
    """Ours: a capture is for finding faults in the bytes."""
    data = frames.initial_response() + spoken(texts) + frames.ending("END_TURN")
    if redact("".join(texts)) != "".join(texts):
        return
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    chunks = [data[start:end] for start, end in pairwise(places)]
    assert masked(chunks) == data


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes_can_be_masked(chunks: list[bytes]) -> None:
    """Ours: what came may be anything, and its length stays."""
    assert len(masked(chunks)) == len(b"".join(chunks))


def test_frames_are_handed_on_at_once_unless_a_secret_may_be_going_on() -> None:
    """Ours: a call that hangs must leave what it got."""
    mask = StreamMask()
    first, second = spoken(["the key is "]), spoken(["ksk_01"])
    assert mask.feed(first) == first
    assert mask.feed(second) == b""
    assert read(mask.feed(spoken(["23, ok"])) + frames.ending()).text == f"{HIDDEN}, ok"


def test_texts_that_alternate_are_told_apart() -> None:
    """Observed: tool uses come with text between; each is a text of its own."""

    def fragment(tool_use_id: str, text: str) -> bytes:
        return event("toolUseEvent", {"toolUseId": tool_use_id, "name": "n", "input": text})

    data = (
        fragment("a", '{"password": "hun')
        + spoken(["The password: "])
        + fragment("b", '{"x": "fine')
        + fragment("a", 'ter2"}')
        + fragment("b", '"}')
    )
    kept = masked([data])
    assert b"hun" not in kept
    assert b"ter2" not in kept
    assert [json.loads(one).get("input") for one in payloads(kept)] == [
        f'{{"password": "{HIDDEN}',
        None,
        '{"x": "fine',
        '"}',
        '"}',
    ]


def test_a_secret_elsewhere_in_a_frame_is_masked_and_its_checksum_is_right() -> None:
    """Ours: errors may repeat what was sent."""
    headers = {":message-type": "error", ":error-code": "x", ":error-message": f"no {KEY}"}
    data = frame(headers, {"message": f"Bearer {KEY} is invalid", "apiKey": 123})
    kept = masked([data])
    assert KEY.encode() not in kept
    assert [json.loads(one) for one in payloads(kept)] == [
        {"message": f"Bearer {HIDDEN} is invalid", "apiKey": HIDDEN}
    ]


@pytest.mark.parametrize(
    "data",
    [
        b'{"message":"The token ' + KEY.encode() + b' is invalid","reason":null}',
        spoken(["fine"]) + frames.with_bad_checksum(spoken([KEY])) + spoken([KEY]),
        spoken([KEY])[:-3],
        frame({":message-type": "event", ":event-type": "x"}, b"no JSON: " + KEY.encode()),
    ],
    ids=["refusal", "bad checksum", "cut", "no JSON"],
)
@pytest.mark.parametrize("chunk_bytes", [1, 9, 100_000])
def test_what_cannot_be_read_is_masked_in_place(data: bytes, chunk_bytes: int) -> None:
    """Ours: it keeps its length, so that it still shows where the fault is."""
    chunks = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    kept = masked(chunks)
    assert KEY.encode() not in kept
    assert len(kept) == len(data)
    assert b"*" * len(KEY) in kept


def test_a_refusal_that_is_masked_still_is_json() -> None:
    """Ours: its replay must find the error that it was."""
    kept = masked([b'{"message":"' + KEY.encode() + b'","reason":"X"}'])
    assert json.loads(kept)["reason"] == "X"


def test_what_is_held_has_a_limit_and_what_goes_on_beyond_it_is_masked() -> None:
    """Ours: a quotation mark that is never closed must not hold an answer for ever."""
    mask = StreamMask()
    kept = mask.feed(spoken(['{"password": "']))
    piece = spoken(["x" * 1000])
    for count in range(3 * MAX_HELD_BYTES // len(piece)):
        kept += mask.feed(piece)
        assert kept or count * len(piece) <= MAX_HELD_BYTES
    kept += mask.feed(spoken(['x", "user": "me"}']))
    text = read(kept + mask.close() + frames.ending()).text
    assert text == f'{{"password": "{HIDDEN}", "user": "me"}}'


@pytest.mark.parametrize(
    "secret", [ACCESS.partition(":")[0] * 50, f"{JWT}_{'x' * 3000}", f"eyJ0eXAi.eyJ{'x' * 3000}.x"]
)
def test_a_long_token_in_single_letters_is_masked_to_its_end(secret: str) -> None:
    """Ours: frames of one letter fill what is held long before the token ends."""
    kept = masked([spoken([letter]) for letter in f"{secret} is it"])
    assert read(kept + frames.ending()).text == f"{HIDDEN} is it"


def test_what_is_no_frame_is_kept_up_to_a_limit() -> None:
    """Ours: a page of a proxy can be long."""
    assert len(masked([b"<html>" + b"x" * 100_000] * 20)) == MAX_UNFRAMED_BYTES


def test_the_texts_that_are_remembered_have_a_limit() -> None:
    """Ours: a stream could name a million tool uses."""
    data = b"".join(
        event("toolUseEvent", {"toolUseId": str(n), "name": "n", "input": "{}"})
        for n in range(2 * masking.MAX_CONTEXTS)
    )
    assert masked([data]) == data
