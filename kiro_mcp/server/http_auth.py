"""Who may use the server over HTTP: the token, and the gate that asks for it.

A machine is shared by its users and programs, and this server spends its owner's subscription,
so a token is asked for by default, also on loopback: the one that was set, or one that is made
once and kept in a file that only its owner can read.
"""

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.redaction import remember_secret
from kiro_mcp.regular_files import read_regular_file
from kiro_mcp.setting_values import is_loopback

TOKEN_BYTES: Final = 32
"""As long as a key of AES-256: not to be guessed."""

MAX_TOKEN_FILE_BYTES: Final = 4096

PUBLIC_PATHS: Final = frozenset({"/", "/health"})
"""What answers without a token: it says only that the server is up."""

HTTP_AUTH_FILE: Final = "http-token"
"""Where a token that was made is kept, in the folder of all else that is."""

MIN_TOKEN_CHARACTERS: Final = 16
"""The shortest token that protects a server which other machines can reach."""

_SEEN_IN_PUBLIC: Final = frozenset({"my-super-secret-password-123"})
"""Tokens that stand in the examples of other gateways: everybody knows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a client has to send."""

    secret: str = field(repr=False)
    """Empty where nothing is asked for."""
    where: str
    """Where its owner finds it: a file or a variable, never the token itself."""

    def __post_init__(self) -> None:
        remember_secret(self.secret, is_lasting=True)


def choose_token(token: str, *, host: str, no_auth: bool, file: Path | None = None) -> Token:
    """Return the token to ask for: the one set, or the one in the file, which is made if need be.

    Args:
        token: The one that was set; empty for none.
        host: The address that the server will listen on.
        no_auth: Ask for none.
        file: Where a token that was made is kept; None where the machine has no place for it.

    Raises:
        InvalidRequest: Anyone could use a server so set up, or the file cannot be used.
    """
    if token in _SEEN_IN_PUBLIC:
        raise InvalidRequest(
            "KIRO_MCP_HTTP_TOKEN is a password that examples print.",
            next_step="Set another one, or none: then one is made.",
        )
    if not is_loopback(host) and (no_auth or not token):
        raise InvalidRequest(
            f"{host} can be reached from other machines, and no token is set.",
            next_step="Set KIRO_MCP_HTTP_TOKEN and leave out --no-auth, or listen on 127.0.0.1.",
        )
    if not is_loopback(host) and len(token) < MIN_TOKEN_CHARACTERS:
        raise InvalidRequest(
            f"{host} can be reached from other machines, and KIRO_MCP_HTTP_TOKEN has only"
            f" {len(token)} characters: it can be guessed.",
            next_step=f"Set one of at least {MIN_TOKEN_CHARACTERS} characters, such as the output"
            " of `openssl rand -hex 32`.",
        )
    if no_auth:
        return Token(secret="", where="")
    if token:
        return Token(secret=token, where="KIRO_MCP_HTTP_TOKEN")
    if file is None:
        raise InvalidRequest(
            "There is no folder to keep a token in: neither HOME nor KIRO_MCP_HOME is set.",
            next_step="Set one of them, or KIRO_MCP_HTTP_TOKEN.",
        )
    return Token(secret=_kept_in(file), where=str(file))


def _kept_in(file: Path) -> str:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _make(file)
        except FileExistsError:
            return _read(file)
    except OSError as error:
        raise InvalidRequest(
            f"The token cannot be kept in {file}: {error.strerror}.",
            next_step="Set KIRO_MCP_HTTP_TOKEN instead.",
        ) from error


def _make(file: Path) -> str:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as opened:
            opened.write(f"{token}\n")
    except OSError:
        file.unlink(missing_ok=True)  # Half a token would keep every later start from working.
        raise
    return token


def _read(file: Path) -> str:
    """Read the token that an earlier start made, if nobody else can have put it there.

    Root can read every file, so the owner is compared and links are not followed.
    """
    found = file.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise _untrusted(file, "it is a link")
    token = read_regular_file(file, MAX_TOKEN_FILE_BYTES).strip()
    if os.name == "posix" and found.st_uid != os.geteuid():
        raise _untrusted(file, "it belongs to another user")
    if os.name == "posix" and found.st_mode & 0o077:
        raise _untrusted(file, "other users can read it")
    if len(token) < TOKEN_BYTES or not token.isascii():
        raise _untrusted(file, "it is damaged")
    return token.decode("ascii")


def _untrusted(file: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The token in {file} cannot be trusted: {why}.",
        next_step="Delete the file; the next start makes a new one.",
    )


class TokenGate:
    """ASGI middleware: lets through who sends the token as a bearer or as `x-api-key`."""

    def __init__(self, app: ASGIApp, token: Token) -> None:
        self._app = app
        self._secret = token.secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        offered = _offered(scope)
        if (
            not self._secret
            or scope["path"] in PUBLIC_PATHS
            or any(secrets.compare_digest(one, self._secret) for one in offered)
        ):
            await self._app(scope, receive, send)
            return
        await _refusal(is_wrong=bool(offered))(scope, receive, send)


def _offered(scope: Scope) -> list[bytes]:
    found: list[bytes] = []
    for name, value in scope["headers"]:
        scheme, _, credential = value.partition(b" ")
        if name == b"authorization" and scheme.lower() == b"bearer":
            found.append(credential.strip())
        elif name == b"x-api-key":
            found.append(value)
    return found


def _refusal(*, is_wrong: bool) -> PlainTextResponse:
    # https://www.rfc-editor.org/rfc/rfc6750#section-3.1: no error code where nothing was offered.
    challenge = 'Bearer realm="kiro-mcp"' + (', error="invalid_token"' if is_wrong else "")
    return PlainTextResponse(
        "Send the token of this server as `Authorization: Bearer …` or `x-api-key`.\n",
        status_code=401,
        # Who may not come in does not keep a connection, either.
        headers={"WWW-Authenticate": challenge, "Connection": "close"},
    )
