"""`--env-file`: adds settings from a file that the user names to those of the environment.

A `.env` file is never searched for: clients start the server in any folder, and a stranger's file
there must not redirect it. The syntax is what most readers of such files have in common::

    # a comment, or an empty line
    NAME=value                 up to the end of the line, or to a `#` after a space
    export NAME="a # value"    exactly the text between the quotes

Variables and escape sequences in a value are not replaced.
"""

import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 1024 * 1024
"""The largest file that is read. A larger file is not a file of settings."""

_ECOSYSTEMS: Final = ("REFRESH_TOKEN", "PROFILE_ARN", "VPN_PROXY_URL")
"""Settings that other gateways read under the same names."""
_PROXY: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

_NAME: Final = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*", re.ASCII)
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")


class EnvFileError(ValueError):
    """The file cannot be used. The message never shows a value."""


def add_env_file(path: Path, environ: MutableMapping[str, str]) -> tuple[str, ...]:
    """Set the variables of a file, if this program reads them and they are unset or empty.

    Other variables are ignored: some, such as BROWSER and LD_PRELOAD, make programs run.

    Returns:
        The names of the ignored variables.

    Raises:
        EnvFileError: The file cannot be used.
    """
    try:
        with path.open("rb") as file:
            read = file.read(MAX_BYTES + 1)
        text = read.decode("utf-8-sig")
    except OSError as error:
        raise EnvFileError(f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise EnvFileError("it is not UTF-8 text") from error
    if len(read) > MAX_BYTES or "\0" in text:
        raise EnvFileError("it is not a file of settings")
    found = parse_env_file(text)
    for name, value in found.items():
        if _is_ours(name) and not environ.get(name, "").strip():
            environ[name] = value
    return tuple(name for name in found if not _is_ours(name))


def _is_ours(name: str) -> bool:
    return name.startswith("KIRO_") or name in _ECOSYSTEMS or name.upper() in _PROXY


def parse_env_file(text: str) -> dict[str, str]:
    """Read variables; if a name occurs twice, the later value counts.

    Raises:
        EnvFileError: A line is not NAME=value; the message has its number.
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
    """Read the text after `=`; None if a quote is not closed, or if text follows it."""
    if not given.startswith(('"', "'")):
        return _COMMENT.sub("", given).rstrip()
    value, is_closed, rest = given[1:].partition(given[0])
    return value if is_closed and not _COMMENT.sub("", rest).strip() else None
