"""The bytes of a response: no secret is left in them, and all else reads as before."""

import json
import tracemalloc
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kiro_mcp.captures.redacting import MAX_UNFRAMED_BYTES, TAIL_CHARACTERS, redacted_stream
from kiro_mcp.emulator import frames
from kiro_mcp.redaction import HIDDEN, redact
from kiro_mcp.wire.eventstream import FrameDecoder
from tests.support.deadline import with_deadline
from tests.support.frames import event, frame
from tests.support.replies import read
from tests.support.secrets import ACCESS, IN_USE, JWT, KEY, TEXTS


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
def test_a_secret_in_pieces_is_hidden_as_in_one_piece(text: str, secret: str, size: int) -> None:
    """Observed: text comes in pieces of 1 to 40 bytes, and whoever reads it joins them."""
    data = spoken(frames.pieces(text, size)) + frames.ending()
    kept = redacted_stream(data)
    assert read(kept).text == redact(text)
    assert secret not in read(kept).text
    assert HIDDEN in read(kept).text


@given(
    before=st.text(alphabet="aeko rB:\"'=\n", max_size=12),
    text=st.sampled_from([text for text, _ in TEXTS.values()]),
    after=st.text(alphabet="aeko rB:\"'=\n", max_size=12),
    cuts=CUTS,
)
@example(before="", text="ksk_0123456789", after="", cuts=[1, 2, 3, 4])
@example(before="a ", text="eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3.c2ln", after=" k", cuts=[3, 4, 30])
def test_pieces_are_redacted_like_the_whole_text(
    before: str, text: str, after: str, cuts: list[int]
) -> None:
    """It must not matter where a piece ends."""
    whole = before + text + after
    kept = redacted_stream(spoken(pieces_of(whole, cuts)))
    assert read(kept + frames.ending()).text == redact(whole)


@given(st.lists(st.text(max_size=30), max_size=8))
def test_bytes_without_a_secret_do_not_change(texts: list[str]) -> None:
    """A capture has to show faults in the bytes."""
    data = frames.initial_response() + spoken(texts) + frames.ending("END_TURN")
    if redact("".join(texts)) != "".join(texts):
        return
    assert redacted_stream(data) == data


@given(st.binary(max_size=512))
def test_any_bytes_can_be_redacted(data: bytes) -> None:
    """The bytes may be anything, and their length stays the same."""
    assert len(redacted_stream(data)) == len(data)


def test_a_member_without_a_name_is_redacted_like_any_other() -> None:
    """The service may add events, with any members."""
    data = event("newEvent", {"": "a text"})
    assert redacted_stream(data) == data
    kept = redacted_stream(event("newEvent", {"": "me@example.com"}), is_cut=True)
    assert [json.loads(one) for one in payloads(kept)] == [{"": "**@example.com"}]


def test_alternating_texts_are_redacted_separately() -> None:
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
    kept = redacted_stream(data)
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
    """Errors may repeat what was sent."""
    headers = {":message-type": "error", ":error-code": "x", ":error-message": f"no {KEY}"}
    data = frame(headers, {"message": f"Bearer {KEY} is invalid", "apiKey": 123})
    kept = redacted_stream(data)
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
def test_unreadable_bytes_are_redacted_without_a_change_of_length(data: bytes) -> None:
    """It keeps its length, so that it still shows where the fault is."""
    kept = redacted_stream(data)
    assert KEY.encode() not in kept
    assert len(kept) == len(data)
    assert b"*" * len(KEY) in kept


def test_a_refusal_that_is_masked_still_is_json() -> None:
    """Its replay must find the same error."""
    kept = redacted_stream(b'{"message":"' + KEY.encode() + b'","reason":"X"}')
    assert json.loads(kept)["reason"] == "X"


@pytest.mark.parametrize(
    "secret", [ACCESS.partition(":")[0] * 50, f"{JWT}_{'x' * 3000}", f"eyJ0eXAi.eyJ{'x' * 3000}.x"]
)
def test_a_long_token_in_single_letters_is_masked_to_its_end(secret: str) -> None:
    """Each frame may hold a single letter."""
    kept = redacted_stream(spoken(f"{secret} is it"))
    assert read(kept + frames.ending()).text == f"{HIDDEN} is it"


def test_bytes_that_are_not_a_frame_are_kept_up_to_a_limit() -> None:
    """A page of a proxy can be long."""
    assert len(redacted_stream((b"<html>" + b"x" * 100_000) * 20)) == MAX_UNFRAMED_BYTES


@pytest.mark.parametrize("secret", [KEY, ACCESS, JWT, IN_USE])
def test_a_secret_at_the_end_of_what_was_cut_is_hidden(secret: str) -> None:
    """The rest of the secret, which would identify it, was not recorded."""
    words = "word " * 200
    for length in range(1, len(secret) + 1):
        data = spoken(frames.pieces(words + secret[:length], 3))
        text = read(redacted_stream(data, is_cut=True) + frames.ending()).text
        assert text == words[: length - TAIL_CHARACTERS] + HIDDEN


def test_many_secrets_in_many_pieces_take_linear_time() -> None:
    """A long answer can quote a key again and again."""
    text = f"{KEY} is it " * 20_000
    kept = with_deadline(lambda: redacted_stream(spoken(frames.pieces(text, 24))))
    assert read(kept + frames.ending()).text == redact(text)


def test_a_long_text_takes_a_few_times_its_own_memory() -> None:
    """Not an object for each of its characters: calls are captured while the server works."""
    data = spoken(["漢字" * 100_000] * 2)
    tracemalloc.start()
    try:
        redacted_stream(data, is_cut=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * len(data)
