"""How fast an answer's bytes are read: ours beside botocore, in one run on the same bytes.

Run it with `python -m tests.benchmarks.stream`. Rounds are interleaved, so that a busy moment
of the machine meets both sides, and each side's best round counts. Exits with 1 when a bar
is missed.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import botocore.eventstream

from kiro_mcp.chat import Reply
from kiro_mcp.wire.eventstream import FrameDecoder
from kiro_mcp.wire.reply import ReplyBuilder
from tests.benchmarks.table import Row, print_table
from tests.support.frames import END, chunks, reasoning, text, tool

ROUNDS = 5
KIB = 1024
Job = Callable[[list[bytes]], int]


def decode(pieces: list[bytes]) -> int:
    """Bytes to frames."""
    decoder, count = FrameDecoder(), 0
    for piece in pieces:
        for frame in decoder.feed(piece):
            count += bool(frame.payload)
    decoder.close()
    return count


def decode_with_botocore(pieces: list[bytes]) -> int:
    """The rival, bytes to frames."""
    buffer = cast("Any", botocore.eventstream.EventStreamBuffer())
    count = 0
    for piece in pieces:
        buffer.add_data(piece)
        for message in cast("Iterable[Any]", buffer):
            count += bool(message.payload)
    return count


def read(pieces: list[bytes]) -> int:
    """Bytes to a reply; deltas are made on the way."""
    return len(read_reply(pieces).text)


def read_reply(pieces: list[bytes]) -> Reply:
    """Bytes to a reply."""
    builder = ReplyBuilder()
    for piece in pieces:
        builder.feed(piece)
    return builder.close()


def read_with_botocore(pieces: list[bytes]) -> int:
    """The rival, bytes to one joined text: nothing else is read."""
    buffer = cast("Any", botocore.eventstream.EventStreamBuffer())
    texts: list[str] = []
    for piece in pieces:
        buffer.add_data(piece)
        texts += [
            json.loads(message.payload)["content"] for message in cast("Iterable[Any]", buffer)
        ]
    return len("".join(texts))


def compare(name: str, ours: Job, rival: Job, data: bytes, chunk_size: int, bar: float) -> Row:
    """Time both on the same chunks."""
    pieces = list(chunks(data, chunk_size))
    assert ours(pieces) == rival(pieces) > 0
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for side, job in enumerate((ours, rival)):
            best[side] = min(best[side], seconds(job, pieces))
    return Row(
        name=f"{name}, {chunk_size // KIB} KiB chunks",
        ours=best[0],
        rival=best[1],
        unit="s",
        bar=bar,
        is_ceiling=False,
    )


def grow(name: str, build: Callable[[int], bytes], size: int) -> Row:
    """Time ours on `size` and on an eighth of it, the latter 8 times over for a fair clock."""
    small, large = (list(chunks(build(each), 16 * KIB)) for each in (size // 8, size))
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        best[0] = min(best[0], seconds(read, large))
        best[1] = min(best[1], sum(seconds(read, small) for _ in range(8)) / 8)
    return Row(
        name=f"8 times the bytes by once, {name}",
        ours=best[0],
        rival=best[1],
        unit="s",
        bar=10,
        is_ceiling=True,
    )


def seconds(job: Job, pieces: list[bytes]) -> float:
    """The processor time of one round; what else the machine does counts less than by a clock."""
    start = time.process_time()
    job(pieces)
    return time.process_time() - start


def small_frames() -> bytes:
    """20,000 frames with a payload of 124 bytes, as the service sends them; texts differ."""
    words = "lorem ipsum dolor sit amet " * 4
    frames = [
        text(f"{number:010} {words}"[:82], modelId="claude-opus-4.8") for number in range(20_000)
    ]
    assert {len(frame.payload) for frame in FrameDecoder().feed(b"".join(frames))} == {124}
    return b"".join(frames)


def large_frames() -> bytes:
    """100 frames of 100 kB."""
    return b"".join(text(f"{number:05}" * 20_000) for number in range(100))


def long_text(size: int) -> bytes:
    """An answer of `size` characters in deltas of 20, nothing repeated."""
    return b"".join(text(f"{number:020}") for number in range(size // 20)) + END


def long_input(size: int) -> bytes:
    """One tool's arguments of `size` characters in fragments of 10."""
    fragments = (tool("t1", input=f"{number:010}") for number in range(size // 10))
    head, tail = tool("t1", input='{"a":"'), tool("t1", input='"}') + tool("t1", stop=True)
    return b"".join((head, *fragments, tail, END))


def long_thinking(size: int) -> bytes:
    """Thinking of `size` characters as events of 20, then a word."""
    pieces = (reasoning(f"{number:020}") for number in range(size // 20))
    return b"".join((*pieces, text("ok"), END))


def long_tagged_thinking(size: int) -> bytes:
    """Thinking of `size` characters between tags, in deltas of 20."""
    pieces = (text(f"<{number:018}<") for number in range(size // 20))
    return b"".join((text("<thinking>"), *pieces, text("</thinking>ok"), END))


def rows() -> list[Row]:
    """Measure everything."""
    small, large = small_frames(), large_frames()
    return [
        *(
            compare("frames, payload 124 B", decode, decode_with_botocore, small, size * KIB, 5)
            for size in (1, 16, 64)
        ),
        *(
            compare("reply, payload 124 B", read, read_with_botocore, small, size * KIB, 2.5)
            for size in (1, 16, 64)
        ),
        compare("frames of 100 kB", decode, decode_with_botocore, large, KIB, 3),
        grow("10 MB of text", long_text, 10_000_000),
        grow("5 MB of a tool's input", long_input, 5_000_000),
        grow("2 MB of thinking, events", long_thinking, 2_000_000),
        grow("2 MB of thinking, tags", long_tagged_thinking, 2_000_000),
    ]


def main() -> int:
    """Print the table."""
    return 0 if print_table(rows()) else 1


if __name__ == "__main__":
    sys.exit(main())
