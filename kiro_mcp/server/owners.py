"""Whose a conversation or an answer is.

Things belong to the credential that made them. Everything that the server's own credential makes
has the owner `OWN`; a caller that brings a credential of its own gets an owner of its own.
"""

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

OWN: Final = ""
"""The owner of what the server's own credential makes: every call over stdio."""

KEY_HEADER: Final = "X-Kiro-Api-Key"
"""The header in which a caller over HTTP brings an API key of its own."""

MAX_KEYS: Final = 100
"""Of how many such keys the state is kept at once."""

SECRET_FILE: Final = "owner-secret"  # noqa: S105  # a name
"""Where the secret of this installation is kept, in the folder of all else that is."""

SECRET_BYTES: Final = 32


def owner_of(credential: str, secret: bytes) -> str:
    """Return the owner that stands for a credential.

    The secret keeps anybody who has only the store from testing which credentials were used.
    """
    return hmac.new(secret, credential.encode(), hashlib.sha256).hexdigest()


def installation_secret(folder: Path | None) -> bytes:
    """Return the secret of this installation, which is made once. Blocking: call it in a thread.

    Args:
        folder: Where it is kept; None for a new secret that lasts as long as the process.
    """
    if folder is not None:
        try:
            return _kept_secret(folder / SECRET_FILE)
        except (OSError, ValueError) as error:
            logger.warning(
                "%s cannot be used (%s): callers with a key of their own will not find their"
                " conversations after a restart.",
                folder / SECRET_FILE,
                error,
            )
    return secrets.token_bytes(SECRET_BYTES)


def _kept_secret(file: Path) -> bytes:
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(secrets.token_bytes(SECRET_BYTES))
            with suppress(FileExistsError):  # Another server was first: its secret counts.
                Path(file).hardlink_to(temporary)
        finally:
            Path(temporary).unlink(missing_ok=True)
    secret = file.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"it does not have {SECRET_BYTES} bytes")
    return secret
