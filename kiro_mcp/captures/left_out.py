"""What a capture does without: the bytes of pictures. Pure.

They are large and private, and letters of base64 can look like a token by chance.
"""

import re
from typing import Any, Final, cast

MIN_CHARACTERS: Final = 1024
"""Shorter ones are left in."""

_BASE64: Final = re.compile(r"(?P<head>data:[^,]{0,100},)?[A-Za-z0-9+/_\s-]++=*+\s*+")


def without_base64(value: Any) -> Any:
    """Return a JSON value in which long texts of base64 are counted instead of shown."""
    match value:
        case str() if len(value) >= MIN_CHARACTERS:
            found = _BASE64.fullmatch(value) if " " not in value[:MIN_CHARACTERS] else None
            return f"{found['head'] or ''}[{len(value)} characters]" if found else value
        case list():
            return [without_base64(item) for item in cast("list[Any]", value)]
        case dict():
            members = cast("dict[str, Any]", value)
            return {name: without_base64(inner) for name, inner in members.items()}
        case _:
            return value
