"""`--env-file`: settings from a file that the user names, beside those of the environment.

A `.env` is never looked for: a server is started in any folder, and a stranger's file there must
not redirect it. The lines are those that the many readers of such files agree on::

    # a comment, or nothing
    NAME=value                 to its end, or to a `#` after a space
    export NAME="a # value"    as it stands between the quotes

Nothing is expanded or unescaped: a value is what can be read there.
"""

import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 1024 * 1024
"""The largest file that is read: whoever names a larger one means another file."""

_ECOSYSTEMS: Final = ("REFRESH_TOKEN", "PROFILE_ARN", "VPN_PROXY_URL")
"""Settings that other gateways have under these names, too."""
_PROXY: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

_NAME: Final = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*", re.ASCII)
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")


class EnvFileError(ValueError):
    """A file that cannot be used; its words never show a value."""


def add_env_file(path: Path, environ: MutableMapping[str, str]) -> tuple[str, ...]:
    """Set the variables of a file that this program reads and the environment lacks, or has empty.

    Others are left out: variables such as BROWSER and LD_PRELOAD make programs run.

    Returns:
        The names of those that were left out.

    Raises:
        EnvFileError: The file cannot be used.
    """
    found = parse_env_file(_text(path))
    for name, value in found.items():
        if _is_ours(name) and not environ.get(name, "").strip():
            environ[name] = value
    return tuple(name for name in found if not _is_ours(name))


def _is_ours(name: str) -> bool:
    return name.startswith("KIRO_") or name in _ECOSYSTEMS or name.upper() in _PROXY


def parse_env_file(text: str) -> dict[str, str]:
    """Read variables; of two with one name, the later one counts.

    Raises:
        EnvFileError: A line is none of a name and a value; says which.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        named, has_value, given = stripped.partition("=")
        name, value = _NAME.fullmatch(named), _value(given.strip())
        if name is None or not has_value or value is None:
            raise EnvFileError(f"line {number} is not NAME=value")
        found[name[1]] = value
    return found


def _value(given: str) -> str | None:
    """Read what stands after `=`; None where a quotation is not closed, or words follow it."""
    if not given.startswith(('"', "'")):
        return _COMMENT.sub("", given).rstrip()
    value, is_closed, rest = given[1:].partition(given[0])
    return value if is_closed and not _COMMENT.sub("", rest).strip() else None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            read = file.read(MAX_BYTES + 1)
        text = read.decode("utf-8-sig")
    except OSError as error:
        raise EnvFileError(f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise EnvFileError("it is not UTF-8 text") from error
    if len(read) > MAX_BYTES or "\0" in text:
        raise EnvFileError("it is no file of settings")
    return text
