"""Whose a conversation or an answer is.

Things belong to the credential that made them. Everything that the server's own credential makes
has the owner `OWN`; a caller that brings a credential of its own gets an owner of its own.
"""

import hashlib
from typing import Final

OWN: Final = ""
"""The owner of what the server's own credential makes: every call over stdio."""


def owner_of(credential: str) -> str:
    """Return the owner that stands for a credential, without giving the credential away."""
    return hashlib.sha256(f"kiro-mcp owner\0{credential}".encode()).hexdigest()
