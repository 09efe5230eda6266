"""What an answer is made of: a script, as data, that the emulator plays to one caller.

A script is a tuple of steps. The HTTP head (status 200, an event stream) goes out with the first
`Send`; `Send(b"")` sends the head alone. After the last step the answer ends as it should.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from kiro_mcp.emulator.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes of the body: whole frames, parts of frames, or anything else."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """Silence, until the emulator has been asked so many prompts, this one included."""

    prompts: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is closed, with the answer unfinished. Nothing after it is played."""


def _no_headers() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """A whole HTTP answer instead of a stream; only before the first `Send`. It ends the script."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=_no_headers)


Step: TypeAlias = Send | Pause | Until | Cut | HttpAnswer | Refusal
"""A `Refusal` stands where an `HttpAnswer` may stand: it is the service's own way to say no."""

Script: TypeAlias = tuple[Step, ...]


def json_answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Script:
    """The script of a whole answer in JSON."""
    return (HttpAnswer(status=status, body=json.dumps(value).encode(), headers=headers or {}),)
