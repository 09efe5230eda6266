"""Which conversation `ask --continue` goes on with: the last one of this command line.

Its id is in a file of its own, because the store holds the conversations of every MCP client of
this machine, and nobody wants to go on with one of those by surprise. Blocking, and quick.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from kiro_mcp.auth.files import read_text, replace_text
from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.settings import Settings

FILE_NAME: Final = "last-conversation"


class LastConversation:
    """The note of it.

    Args:
        path: Where it is; None where conversations end with the command.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @classmethod
    def of(cls, environ: Mapping[str, str], *, offline: bool) -> "LastConversation":
        """Find it.

        Raises:
            InvalidRequest: A setting cannot be used.
        """
        if offline:
            return cls(None)  # Nothing is kept there, wherever the settings would have it.
        settings = Settings.load(environ)
        home = own_home(Machine.of(environ, sys.platform), settings.home)
        is_kept = home is not None and settings.store == "disk"
        return cls(home / FILE_NAME if home and is_kept else None)

    @property
    def is_kept(self) -> bool:
        """Whether a conversation outlives the command that it was held with."""
        return self._path is not None

    def read(self) -> str:
        """Return the conversation's id.

        Raises:
            InvalidRequest: There is none.
        """
        if self._path is None:
            raise InvalidRequest(
                "There is nothing to continue: with --offline or KIRO_MCP_STORE=memory a"
                " conversation ends with its command.",
                next_step="Ask without --continue; `kiro-mcp emulate` is an emulator that stays.",
            )
        try:
            if conversation_id := read_text(self._path).strip():
                return conversation_id
        except (OSError, ValueError):
            pass  # Nobody has asked yet, or the note is no use.
        raise InvalidRequest(
            "This command line has no conversation to continue yet.",
            next_step="Ask without --continue first, or name a conversation: --continue ID.",
            code="not_found",
        )

    def write(self, conversation_id: str) -> None:
        """Note the conversation. Where that fails, `--continue` alone will not find it."""
        if self._path is not None:
            with suppress(OSError):
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_text(self._path, conversation_id)

    def forget(self) -> None:
        """Continue none, until the next answer."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
