"""Dates as the stores of sign-in write them, read into aware UTC, and written back. Pure.

Observed: ISO 8601 with 0 to 9 digits of a second, with `Z`, an offset or nothing; seconds or
milliseconds since the epoch, as a number or as text.
"""

import re
from datetime import UTC, datetime
from typing import Final

MILLISECONDS_FROM: Final = 100_000_000_000
"""A greater number counts milliseconds: in seconds it would be the year 5138."""


def parse_time(value: object) -> datetime | None:
    """Read a date of any known form; None if the value is not a date.

    Raises:
        ValueError: It has no known form.
    """
    if value is None or value == "":
        return None
    try:
        return _parse(value)
    except (OverflowError, OSError) as error:
        raise ValueError("no date") from error


def _parse(value: object) -> datetime:
    if isinstance(value, bool):
        raise ValueError("no date")
    if isinstance(value, int | float):
        return _from_epoch(float(value))
    if not isinstance(value, str):
        raise ValueError("no date")
    text = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _from_epoch(float(text))
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _from_epoch(number: float) -> datetime:
    return datetime.fromtimestamp(number / 1000 if number > MILLISECONDS_FROM else number, UTC)


def format_time(moment: datetime) -> str:
    """Write a date as every reader of these stores takes it: UTC, milliseconds, `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
