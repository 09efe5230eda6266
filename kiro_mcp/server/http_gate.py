"""Who may use the server over HTTP, and how much memory all requests may use together.

All requests pass through `HttpGate`, which checks in this order:

    Host and Origin    421 or 403 for a name or a web page that is not allowed
    token              401 without the server's token; `/` and `/health` need none
    memory             503 if there is no room for a large body in time

*Host and Origin.* A web page that a user visits can make their browser call this machine, also by
a host name that the page's author points here ("DNS rebinding"). So Host and Origin are checked on
every address and path, with and without a token. The author chooses the name, so only exact names
are allowed. The port in Host is not checked, because containers and tunnels map the server's port
to another one.
https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#security-warning

*Token.* The users and programs of a machine share it, and this server uses its owner's
subscription. So a token is required by default, also on loopback. It comes from a setting, or is
generated once and stored in a file that only its owner can read.

*Memory.* A body is read completely before it is parsed, and its content stays in memory until its
call ends. So each request reserves a share of one budget before its body is read, and returns it at
its end. If the budget is used up, a request waits, and its client cannot send more.
"""

import ctypes
import ipaddress
import logging
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.files import read_regular_file
from kiro_mcp.redaction import remember_secret
from kiro_mcp.settings import is_loopback

logger = logging.getLogger(__name__)

LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
"""Clients omit these ports in Host and Origin."""

PUBLIC_PATHS: Final = frozenset({"/", "/health"})
"""They need no token: they say only that the server runs."""

TOKEN_BYTES: Final = 32
"""The length of an AES-256 key, which cannot be guessed."""

MIN_TOKEN_CHARACTERS: Final = 16
"""The shortest token for a server that other machines can reach."""

HTTP_AUTH_FILE: Final = "http-token"
"""The file with the generated token, in the folder of the package's data."""

MAX_TOKEN_FILE_BYTES: Final = 4096

BODIES_AT_ONCE: Final = 4
"""How many bodies of the largest size fit into the memory budget."""

BODY_WAIT_SECONDS: Final = 30.0
"""How long a request waits for memory."""

SMALL_BYTES: Final = 16 * 1024
"""A body up to this size does not wait: one per connection needs little memory."""

LARGE_BYTES: Final = 128 * 1024
"""Freed blocks of at least this size are returned to the system at once."""

_API_ERRORS: Final = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    421: ("invalid_request_error", "invalid_request"),
    503: ("overloaded_error", "overloaded"),
}
"""Type and code of each refusal in the APIs of OpenAI and Anthropic."""

_SEEN_IN_PUBLIC: Final = frozenset({"my-super-secret-password-123"})
"""Tokens from the examples of other gateways, which everybody knows."""

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]*]+)(?::([0-9]{1,5}))?")


# --- Host and Origin ------------------------------------------------------------------------


class AllowedNames:
    """The host names that requests may use: this machine's, the server's address, and others."""

    def __init__(self, host: str, port: int, also: Iterable[str] = ()) -> None:
        """Take the server's address and port, and the names that the settings allow."""
        self._port = port
        self._own = {*LOOPBACK_NAMES}
        try:
            # Any web page can reach this machine as 0.0.0.0, so that name is not allowed.
            is_any_address = ipaddress.ip_address(host).is_unspecified
        except ValueError:
            is_any_address = False
        if not is_any_address:
            self._own.add(in_url(host).lower())
        self._others: set[tuple[str, int | None]] = set()
        """Names of the settings, each with the only port that it may have; None for any."""
        for name in also:
            if found := _split(name):
                self._others.add(found)
            else:
                logger.warning("KIRO_MCP_ALLOWED_HOSTS: %s is not a host's name.", quoted(name))

    def allow_host(self, host: str) -> bool:
        """Whether clients may use this Host."""
        if not (found := _split(host)):
            return False
        name, port = found
        ports = DEFAULT_PORTS.values() if port is None else (port,)
        return name in self._own or any((name, port) in self._others for port in (None, *ports))

    def allow_origin(self, origin: str, host: str) -> bool:
        """Whether pages of this Origin may use this Host.

        They may if the Origin is the Host itself or one of the server's own addresses. Another port
        of this machine belongs to another program.
        """
        scheme, _, authority = origin.lower().partition("://")
        found, called = _split(authority), _split(host)
        if scheme not in DEFAULT_PORTS or not found or not called:
            return False
        default = DEFAULT_PORTS[scheme]
        name, port = found[0], found[1] or default
        return (
            (name, port) == (called[0], called[1] or default)
            or (name in self._own and port == self._port)
            or ((name, None) in self._others and port in (self._port, default))
            or (name, port) in self._others
        )


def in_url(host: str) -> str:
    """Return a host as in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _split(authority: str) -> tuple[str, int | None] | None:
    """Return the name in lower case and the port, if there is one; None if it is invalid."""
    if not (found := _AUTHORITY.fullmatch(authority)):
        return None
    return found[1].lower(), int(found[2]) if found[2] else None


# --- the token ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The token that clients must send."""

    secret: str = field(repr=False)
    """Empty if none is required."""
    where: str
    """Where its owner finds it: a file or a variable, never the token itself."""

    def __post_init__(self) -> None:
        remember_secret(self.secret, is_lasting=True)


def choose_token(token: str, *, host: str, no_auth: bool, file: Path | None = None) -> Token:
    """Return the token to require: the one of the settings, or the one in the file.

    Args:
        token: The one of the settings; empty for none.
        host: The address that the server will listen on.
        no_auth: Require no token.
        file: The file with the generated token, which is created if it is missing; None if this
            machine has no folder for it.

    Raises:
        InvalidRequest: Anyone could use a server with these settings, or the file cannot be used.
    """
    if token in _SEEN_IN_PUBLIC:
        raise InvalidRequest(
            "KIRO_MCP_HTTP_TOKEN is a password from published examples.",
            next_step="Set another one, or none: then one is generated.",
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
            "There is no folder for the token: neither HOME nor KIRO_MCP_HOME is set.",
            next_step="Set one of them, or KIRO_MCP_HTTP_TOKEN.",
        )
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            secret = _make_token(file)
        except FileExistsError:
            secret = _read_token(file)
    except OSError as error:
        raise InvalidRequest(
            f"The token cannot be stored in {file}: {error.strerror}.",
            next_step="Set KIRO_MCP_HTTP_TOKEN instead.",
        ) from error
    return Token(secret=secret, where=str(file))


def _make_token(file: Path) -> str:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as opened:
            opened.write(f"{token}\n")
    except OSError:
        file.unlink(missing_ok=True)  # With half a token in it, every later start would fail.
        raise
    return token


def _read_token(file: Path) -> str:
    """Read the token of an earlier start, unless another user can have written it.

    Root can read every file, so the owner is compared and links are not followed.
    """
    found = file.lstat()
    is_link = stat.S_ISLNK(found.st_mode)
    token = b"" if is_link else read_regular_file(file, MAX_TOKEN_FILE_BYTES).strip()
    faults = {
        "it is a link": is_link,
        "it belongs to another user": os.name == "posix" and found.st_uid != os.geteuid(),
        "other users can read it": os.name == "posix" and found.st_mode & 0o077,
        "it is damaged": len(token) < TOKEN_BYTES or not token.isascii(),
    }
    if fault := next((fault for fault, is_so in faults.items() if is_so), ""):
        raise InvalidRequest(
            f"The token in {file} cannot be trusted: {fault}.",
            next_step="Delete the file; the next start makes a new one.",
        )
    return token.decode("ascii")


# --- the gate -------------------------------------------------------------------------------


class HttpGate:
    """ASGI middleware: refuses a request, or passes it on when there is memory for its body."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: Token,
        names: AllowedNames,
        max_body_bytes: int,
        body_wait_seconds: float = BODY_WAIT_SECONDS,
    ) -> None:
        """Protect an application, which must limit the size of each body itself."""
        self._app = app
        self._secret = token.secret.encode()
        self._names = names
        self._max_body_bytes = max_body_bytes
        self._body_wait_seconds = body_wait_seconds
        self._free_bytes = BODIES_AT_ONCE * max_body_bytes
        self._given_back = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on."""
        headers = Headers(scope=scope)
        path: str = scope["path"]
        if refusal := self._check(path, headers):
            await refusal(scope, receive, send)
            return

        declared = headers.get("content-length", "")
        is_chunked = "transfer-encoding" in headers
        size = int(declared) if declared.isdecimal() else self._max_body_bytes * is_chunked
        share = min(size, self._max_body_bytes)  # The application refuses a larger body unread.
        if share <= SMALL_BYTES:
            share = 0
        with anyio.move_on_after(self._body_wait_seconds) as waiting:
            while self._free_bytes < share:
                await self._given_back.wait()
        if waiting.cancelled_caught:
            why = "The server is working on other large requests. Try again in a minute."
            await refuse(path, 503, why, {"Retry-After": "60"})(scope, receive, send)
            return
        received = 0

        async def count() -> Message:
            nonlocal received, share
            message = await receive()
            received += len(message.get("body", b""))
            if message["type"] == "http.request" and not message.get("more_body"):
                # Now the size of the chunked body is known.
                self._give_back(share - received)
                share = received
            return message

        self._free_bytes -= share
        try:
            await self._app(scope, count if is_chunked else receive, send)
        finally:
            self._give_back(share)

    def _check(self, path: str, headers: Headers) -> Response | None:
        """Return a refusal if Host or Origin is not allowed, or the token is missing."""
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self._names.allow_host(host):
            why = (
                f"The Host {quoted(host)} is not allowed here. If it is a name of this server, add"
                " it to KIRO_MCP_ALLOWED_HOSTS in the server's configuration."
            )
            logger.warning("421: %s", why)
            return refuse(path, 421, why)
        for origin in headers.getlist("origin"):
            if origin and not self._names.allow_origin(origin, host):
                why = (
                    f"Pages of {quoted(origin)} may not call this server. If they are yours, add"
                    " their host to KIRO_MCP_ALLOWED_HOSTS in the server's configuration."
                )
                logger.warning("403: %s", why)
                return refuse(path, 403, why)
        if not self._secret or path in PUBLIC_PATHS:
            return None
        offered = headers.getlist("x-api-key")
        for value in headers.getlist("authorization"):
            scheme, _, credential = value.partition(" ")
            if scheme.lower() == "bearer":
                offered.append(credential.strip())
        if any(secrets.compare_digest(one.encode("latin-1"), self._secret) for one in offered):
            return None
        # https://www.rfc-editor.org/rfc/rfc6750#section-3.1: no error code if no token was sent.
        challenge = 'Bearer realm="kiro-mcp"' + (', error="invalid_token"' if offered else "")
        why = "Send the token of this server as `Authorization: Bearer …` or `x-api-key`."
        return refuse(path, 401, why, {"WWW-Authenticate": challenge})

    def _give_back(self, size: int) -> None:
        self._free_bytes += size
        self._given_back.set()
        self._given_back = anyio.Event()


def refuse(path: str, status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """Build the refusal of a request, under `/v1/` in the form of OpenAI's and Anthropic's APIs."""
    sent = {**(headers or {}), "Connection": "close"}
    if path.startswith("/v1/"):
        kind, code = _API_ERRORS[status]
        error = {"type": kind, "message": why, "code": code, "param": None}
        return JSONResponse({"type": "error", "error": error}, status, sent)
    return PlainTextResponse(f"{why}\n", status, sent)


def give_large_blocks_back() -> None:
    """Make the C library return large blocks to the system when they are freed.

    By default glibc keeps such blocks after the first one is freed. A server would then occupy
    hundreds of megabytes for ever after a few large requests.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Only glibc has it.
    if mallopt is not None:
        m_mmap_threshold = -3
        mallopt(m_mmap_threshold, LARGE_BYTES)
