"""A renewed login, put back where another program keeps it. Blocking: use a worker thread."""

import json
from pathlib import Path

from kiro_mcp.auth.credential_files import parse_object, text_of
from kiro_mcp.auth.private_files import can_replace, read_text, replace_text
from kiro_mcp.auth.renewal import merged
from kiro_mcp.auth.tokens import Credential


def can_write_back(credential: Credential) -> bool:
    """Whether the owner's copy could be renewed; if not, a refresh would log the owner out."""
    path = Path(credential.path)
    if credential.origin == "database":
        from kiro_mcp.auth import databases  # sqlite3, for the few who have a database.

        return databases.can_update(path)
    return can_replace(path)


def write_back(renewed: Credential, *, spent_refresh_token: str) -> bool:
    """Put a renewed login back, if the owner's copy still holds the token that was spent.

    Returns:
        Whether it does; if not, its owner was there first and ours is to be discarded.

    Raises:
        OSError: It cannot be written.
    """
    path = Path(renewed.path)
    if renewed.origin == "database":
        from kiro_mcp.auth import databases  # As above.

        return databases.update_row(path, renewed, spent_refresh_token=spent_refresh_token)
    try:
        document = parse_object(read_text(path))
    except ValueError as error:
        raise OSError(f"{error}") from error
    if text_of(document, "refresh_token") != spent_refresh_token:
        return False
    replace_text(path, json.dumps(merged(document, renewed), indent=2))
    return True
