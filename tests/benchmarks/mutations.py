"""One million broken frames through the decoder: nothing but our error, no hang, no growth.

Run it with `python -m tests.benchmarks.mutations [COUNT]`. Half of the frames have bytes
changed, inserted or cut off; of the other half only headers and payload are changed, and the
lengths and checksums made right again, so that what is behind them is reached. A frame that
decodes all the same must encode to the very bytes that it came from. Exits with 1 on a finding.
"""

import contextlib
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

from kiro_mcp.errors import FrameError
from kiro_mcp.wire.eventstream import (
    BYTE,
    INTEGER,
    LONG,
    SHORT,
    TIMESTAMP,
    FrameDecoder,
    HeaderValue,
    Number,
    encode_frame,
)
from tests.support.frames import cut, raw_frame, text, tool

VECTORS = Path(__file__).parent.parent / "vectors"
ALLOWED_SECONDS_PER_FRAME = 1.0
ALLOWED_GROWTH_MIB = 16


def corpus() -> list[bytes]:
    """Good frames to break."""
    aws = json.loads((VECTORS / "event-stream.json").read_text("utf-8"))["valid"]
    capture = json.loads((VECTORS / "kiro-capture.json").read_text("utf-8"))["frames_hex"]
    headers: dict[str, HeaderValue] = {
        "flag": True,
        "byte": Number(BYTE, -1),
        "short": Number(SHORT, 2),
        "integer": Number(INTEGER, -3),
        "long": Number(LONG, 4),
        "bytes": b"\x00\xff",
        "string": "déjà",
        "timestamp": Number(TIMESTAMP, 5),
        "uuid": UUID(int=6),
    }
    return [
        *(bytes.fromhex(vector["hex"]) for vector in aws),
        *map(bytes.fromhex, capture),
        encode_frame(headers, b"{}"),
        text("lorem ipsum " * 40),
        tool("t1", input='{"a":'),
    ]


def broken(frame: bytes, dice: random.Random) -> bytes:
    """The frame with up to four bytes changed, or with bytes inserted or cut off."""
    data = bytearray(frame)
    for _ in range(dice.randint(1, 4)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    position = dice.randrange(len(data))
    match dice.randrange(4):
        case 0:
            del data[position:]
        case 1:
            data[position:position] = dice.randbytes(dice.randint(1, 8))
        case _:
            pass
    return bytes(data)


def broken_inside(frame: bytes, dice: random.Random) -> bytes:
    """The frame with headers changed, and its lengths and checksums right for that."""
    headers_length = int.from_bytes(frame[4:8])
    block = bytearray(frame[12 : 12 + headers_length] or b"\x01a\x00")
    for _ in range(dice.randint(1, 3)):
        block[dice.randrange(len(block))] = dice.choice((dice.randrange(12), dice.randrange(256)))
    if not dice.randrange(4):
        del block[dice.randrange(len(block)) :]
    return raw_frame(bytes(block), frame[12 + headers_length : -4])


def outcome(data: bytes, dice: random.Random) -> str:
    """Decode in random chunks; say what became of the frame."""
    decoder = FrameDecoder()
    frames = [
        frame
        for piece in cut(data, [dice.randrange(1 << 16) for _ in range(dice.randrange(3))])
        for frame in decoder.feed(piece)
    ]
    again = b"".join(encode_frame(frame.headers, frame.payload) for frame in frames)
    assert data.startswith(again), f"not the inverse: {data.hex()}"
    with contextlib.suppress(FrameError):
        decoder.close()
    if decoder.fault is None:
        assert again == data
        return "decoded"
    assert decoder.fault.frame_count == len(frames)
    return decoder.fault.message.partition(": ")[2].partition(" (at byte")[0]


def kind_of(words: str) -> str:
    """An outcome without its numbers and names."""
    return " ".join(word for word in words.split() if word.isalpha() or word[-1] in ",;")


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(count: int) -> int:
    """Print the figures."""
    dice = random.Random(20260731)
    frames = corpus()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    warm_up = count // 20
    before = 0.0
    start = time.perf_counter()
    for number in range(count):
        breaks = broken if number % 2 else broken_inside
        data = breaks(frames[number % len(frames)], dice)
        began = time.perf_counter()
        outcomes[kind_of(outcome(data, dice))] += 1
        slowest = max(slowest, time.perf_counter() - began)
        if number == warm_up:
            before = peak_mib()
    seconds = time.perf_counter() - start
    growth = peak_mib() - before
    print(f"{count} broken frames in {seconds:.1f} s, {count / seconds:.0f} a second")
    print(f"slowest {slowest * 1000:.2f} ms; peak memory grew by {growth:.1f} MiB after warm-up")
    for words, times in outcomes.most_common():
        print(f"{times:10}  {words}")
    is_good = slowest < ALLOWED_SECONDS_PER_FRAME and growth < ALLOWED_GROWTH_MIB
    print("no error but FrameError" if is_good else "TOO SLOW OR TOO LARGE")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
