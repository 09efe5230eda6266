"""Who may use the server over HTTP, and how much memory requests may take together.

All requests pass through `HttpGate`, which checks in this order:

    Host and Origin    421 or 403 for a name or a web page that is not allowed
    token              401 without the bearer of this server; `/` and `/health` need none
    memory             503 if a large body finds no room in time

*Host and Origin.* A web page that a user visits can make their browser call this machine, also by
a name that its author points here ("DNS rebinding"). So the names in Host and Origin are checked
on every address and every path, whether a token is asked for or not. Such a page chooses the name
freely, so only exact names are allowed. The port of Host says nothing about who calls: it differs
where a container or a tunnel maps the server's port.
https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#security-warning

*Token.* A machine is shared by its users and programs, and this server spends its owner's
subscription. So a token is asked for by default, also on loopback: the one that was set, or one
that is made once and kept in a file that only its owner can read.

*Memory.* A body is read whole before it is understood, and its content is held as long as its call
runs. So each request takes its share of one budget before its body is read, and gives it back at
its end. If the budget is used up, a request waits: its client cannot send more meanwhile.
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
"""Clients leave these ports out of Host and Origin."""

PUBLIC_PATHS: Final = frozenset({"/", "/health"})
"""They need no token: they say only that the server is up."""

TOKEN_BYTES: Final = 32
"""As long as a key of AES-256: it cannot be guessed."""

MIN_TOKEN_CHARACTERS: Final = 16
"""The shortest token that protects a server which other machines can reach."""

HTTP_AUTH_FILE: Final = "http-token"
"""The file of a token that was made, in the folder of the package's data."""

MAX_TOKEN_FILE_BYTES: Final = 4096

BODIES_AT_ONCE: Final = 4
"""How many of the largest bodies fit into the memory budget."""

BODY_WAIT_SECONDS: Final = 30.0
"""How long a request waits for room."""

SMALL_BYTES: Final = 16 * 1024
"""A body up to this size does not wait: one for each connection takes little memory."""

LARGE_BYTES: Final = 128 * 1024
"""Blocks of at least this size go back to the system as soon as they are freed."""

_API_ERRORS: Final = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    421: ("invalid_request_error", "invalid_request"),
    503: ("overloaded_error", "overloaded"),
}
"""Type and code of each refusal in the vendors' APIs."""

_SEEN_IN_PUBLIC: Final = frozenset({"my-super-secret-password-123"})
"""Tokens from the examples of other gateways: everybody knows them."""

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]*]+)(?::([0-9]{1,5}))?")


# --- Host and Origin ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedNames:
    """The host names that requests may use, in lower case."""

    port: int
    """The port that is listened on."""
    own: frozenset[str]
    """This machine's names and the address that is listened on."""
    others: frozenset[str]
    """Names that the settings allow, with any port."""
    with_port: frozenset[tuple[str, int]]
    """Names that the settings allow with one port only."""

    def allow_host(self, host: str) -> bool:
        """Whether clients may call the server by this Host."""
        if not (found := _split(host)):
            return False
        name, port = found
        ports = DEFAULT_PORTS.values() if port is None else (port,)
        has_port = any((name, port) in self.with_port for port in ports)
        return name in self.own or name in self.others or has_port

    def allow_origin(self, origin: str, host: str) -> bool:
        """Whether pages of this Origin may call the server by this Host.

        Pages of the address that is called may, and pages of the server's own addresses. Another
        port of this machine belongs to another program.
        """
        scheme, _, authority = origin.lower().partition("://")
        found, called = _split(authority), _split(host)
        if scheme not in DEFAULT_PORTS or not found or not called:
            return False
        default = DEFAULT_PORTS[scheme]
        name, port = found[0], found[1] or default
        return (
            (name, port) == (called[0], called[1] or default)
            or (name in self.own and port == self.port)
            or (name in self.others and port in (self.port, default))
            or (name, port) in self.with_port
        )


def allowed_names(host: str, port: int, also: Iterable[str] = ()) -> AllowedNames:
    """Allow this machine's names, the address that is listened on and the names in `also`."""
    own = {*LOOPBACK_NAMES}
    try:
        # Browsers take 0.0.0.0 for this machine, so it is not a name to be called by.
        is_any_address = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        is_any_address = False
    if not is_any_address:
        own.add(in_url(host).lower())
    given: list[tuple[str, int | None]] = []
    for name in also:
        if found := _split(name):
            given.append(found)
        else:
            logger.warning("KIRO_MCP_ALLOWED_HOSTS: %s is not a host's name.", quoted(name))
    return AllowedNames(
        port=port,
        own=frozenset(own),
        others=frozenset(name for name, port in given if port is None),
        with_port=frozenset((name, port) for name, port in given if port is not None),
    )


def in_url(host: str) -> str:
    """Return a host in the form for a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _split(authority: str) -> tuple[str, int | None] | None:
    """Return the name in lower case, and the port if there is one; None if it cannot be read."""
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        return None
    name, port = found.groups()
    return name.lower(), int(port) if port else None


# --- the token ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a client has to send."""

    secret: str = field(repr=False)
    """Empty if no token is asked for."""
    where: str
    """Where its owner finds it: a file or a variable, never the token itself."""

    def __post_init__(self) -> None:
        remember_secret(self.secret, is_lasting=True)


def choose_token(token: str, *, host: str, no_auth: bool, file: Path | None = None) -> Token:
    """Return the token to ask for: the one that was set, or the one in the file.

    Args:
        token: The one that was set; empty for none.
        host: The address that the server will listen on.
        no_auth: Ask for no token.
        file: Where a token is kept that was made, and is made if need be; None if the machine
            has no place for it.

    Raises:
        InvalidRequest: Anyone could use a server with these settings, or the file cannot be used.
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
            "No folder can keep the token: neither HOME nor KIRO_MCP_HOME is set.",
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
            f"The token cannot be kept in {file}: {error.strerror}.",
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
        file.unlink(missing_ok=True)  # Half a token would keep every later start from working.
        raise
    return token


def _read_token(file: Path) -> str:
    """Read the token that an earlier start made, if nobody else can have put it there.

    Root can read every file, so the owner is compared and links are not followed.
    """
    found = file.lstat()
    fault = "it is a link" if stat.S_ISLNK(found.st_mode) else ""
    token = b"" if fault else read_regular_file(file, MAX_TOKEN_FILE_BYTES).strip()
    if not fault and os.name == "posix":
        if found.st_uid != os.geteuid():
            fault = "it belongs to another user"
        elif found.st_mode & 0o077:
            fault = "other users can read it"
    if not fault and (len(token) < TOKEN_BYTES or not token.isascii()):
        fault = "it is damaged"
    if fault:
        raise InvalidRequest(
            f"The token in {file} cannot be trusted: {fault}.",
            next_step="Delete the file; the next start makes a new one.",
        )
    return token.decode("ascii")


# --- the gate -------------------------------------------------------------------------------


class HttpGate:
    """ASGI middleware: refuses a request, or lets it in as soon as there is memory for its body."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: Token,
        names: AllowedNames,
        max_body_bytes: int,
        body_wait_seconds: float = BODY_WAIT_SECONDS,
    ) -> None:
        """Stand in front of an application, which limits the size of each body itself."""
        self._app = app
        self._secret = token.secret.encode()
        self._names = names
        self._max_body_bytes = max_body_bytes
        self._body_wait_seconds = body_wait_seconds
        self._free_bytes = BODIES_AT_ONCE * max_body_bytes
        self._given_back = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        headers = Headers(scope=scope)
        path: str = scope["path"]
        refusal = self._check_names(path, headers) or self._check_token(path, headers)
        if refusal:
            await refusal(scope, receive, send)
            return

        declared = headers.get("content-length", "")
        is_chunked = "transfer-encoding" in headers
        size = int(declared) if declared.isdecimal() else self._max_body_bytes * is_chunked
        share = min(size, self._max_body_bytes)  # More is refused without being read.
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
                # The size of a chunked body is known now.
                self._give_back(share - received)
                share = received
            return message

        self._free_bytes -= share
        try:
            await self._app(scope, count if is_chunked else receive, send)
        finally:
            self._give_back(share)

    def _check_names(self, path: str, headers: Headers) -> Response | None:
        """Return the refusal of a foreign Host or Origin; None if they are allowed."""
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self._names.allow_host(host):
            return _refuse_name(
                path,
                421,
                f"This server does not answer to the name {quoted(host)}. If it is yours, add it"
                " to KIRO_MCP_ALLOWED_HOSTS where the server is configured.",
            )
        for origin in headers.getlist("origin"):
            if origin and not self._names.allow_origin(origin, host):
                return _refuse_name(
                    path,
                    403,
                    f"This server takes no calls from pages of {quoted(origin)}. If they are yours,"
                    " add their host to KIRO_MCP_ALLOWED_HOSTS where the server is configured.",
                )
        return None

    def _check_token(self, path: str, headers: Headers) -> Response | None:
        """Return the refusal of a request without the token; None if it may come in.

        Clients send the token as a bearer or as `x-api-key`.
        """
        offered = headers.getlist("x-api-key")
        for value in headers.getlist("authorization"):
            scheme, _, credential = value.partition(" ")
            if scheme.lower() == "bearer":
                offered.append(credential.strip())
        if not self._secret or path in PUBLIC_PATHS:
            return None
        if any(secrets.compare_digest(one.encode("latin-1"), self._secret) for one in offered):
            return None
        # https://www.rfc-editor.org/rfc/rfc6750#section-3.1: no error code if nothing was offered.
        challenge = 'Bearer realm="kiro-mcp"' + (', error="invalid_token"' if offered else "")
        said = "Send the token of this server as `Authorization: Bearer …` or `x-api-key`."
        return refuse(path, 401, said, {"WWW-Authenticate": challenge})

    def _give_back(self, size: int) -> None:
        self._free_bytes += size
        self._given_back.set()
        self._given_back = anyio.Event()


def refuse(path: str, status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """Build the refusal of a request: in the shape of both vendors' APIs for their paths."""
    sent = {**(headers or {}), "Connection": "close"}
    if path.startswith("/v1/"):
        kind, code = _API_ERRORS[status]
        error = {"type": kind, "message": why, "code": code, "param": None}
        return JSONResponse({"type": "error", "error": error}, status, sent)
    return PlainTextResponse(f"{why}\n", status, sent)


def _refuse_name(path: str, status: int, why: str) -> Response:
    logger.warning("%d: %s", status, why)
    return refuse(path, status, why)


def give_large_blocks_back() -> None:
    """Have the C library return large blocks to the system when they are freed.

    glibc learns from the first large block that is freed to keep such blocks, so that a server
    that has read a few large requests would hold hundreds of megabytes for good.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Only glibc has it.
    if mallopt is not None:
        m_mmap_threshold = -3
        mallopt(m_mmap_threshold, LARGE_BYTES)
