"""`kiro-mcp serve --transport http|sse`: runs the server on a port and prints how to reach it."""

import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from starlette.types import ASGIApp

from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.cli.output import NETWORK, USAGE, end_process, note
from kiro_mcp.cli.serve import run, server_for, server_log, service_environ
from kiro_mcp.client.telemetry import flush_telemetry
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.server.http import SSE_PATH, STREAMABLE_PATH, Transport, serving
from kiro_mcp.server.http_gate import (
    HTTP_AUTH_FILE,
    AllowedNames,
    Token,
    choose_token,
    give_large_blocks_back,
    in_url,
)
from kiro_mcp.server.stdio import wait_for_signal
from kiro_mcp.settings import Settings, is_loopback
from kiro_mcp.web_server import listen


def serve_http_and_exit(
    transport: Transport,
    *,
    host: str | None,
    port: int | None,
    api: bool,
    no_auth: bool,
    offline: bool,
) -> NoReturn:
    """Serve until a signal comes, then end the process.

    `host` and `port` are None for those of the settings.
    """
    try:
        # Options of the command line win over the environment.
        given = {"KIRO_MCP_HOST": host, "KIRO_MCP_PORT": None if port is None else str(port)}
        given["KIRO_MCP_API"] = "true" if api else None
        options = {name: value for name, value in given.items() if value is not None}
        settings = Settings.load({**os.environ, **options})
        secret = settings.http_token.get_secret_value()
        home = own_home(Machine.of(os.environ, sys.platform), settings.home)
        file = home / HTTP_AUTH_FILE if home else None
        token = choose_token(secret, host=settings.host, no_auth=no_auth, file=file)
    except InvalidRequest as error:
        note(f"{error.code}: {error}")
        sys.exit(USAGE)

    async def serve() -> int:
        try:
            listener = listen(settings.host, settings.port)
        except OSError as error:
            address = f"{in_url(settings.host)}:{settings.port}"
            cure = "Choose another with --host or --port."
            note(f"Cannot listen on {address}: {error.strerror}. {cure}")
            return NETWORK
        port = listener.getsockname()[1]
        mounted: dict[str, ASGIApp] = {}
        if settings.api:
            from kiro_mcp.api.app import API_PATH, build_api  # Few servers need this import.

            mounted = {API_PATH: build_api(settings.max_body_bytes)}
        give_large_blocks_back()
        async with (
            service_environ(offline=offline) as environ,
            serving(
                server_for(environ),
                listener,
                transport=transport,
                token=token,
                names=AllowedNames(settings.host, port, settings.allowed_hosts),
                max_body_bytes=settings.max_body_bytes,
                mounted=mounted,
            ) as served,
        ):
            for line in _announcement(transport, token, settings, port):
                note(line)
            code = await wait_for_signal()
            await served.end()
            flush_telemetry()
            end_process(code)  # Open connections do not delay it.

    end_process(run(serve, server_log()))


def _announcement(
    transport: Transport, token: Token, settings: Settings, port: int
) -> Iterator[str]:
    path = {"http": STREAMABLE_PATH, "sse": SSE_PATH}[transport]
    if transport == "sse":
        yield "warning: MCP has deprecated the SSE transport; use --transport http if you can."
    if not token.secret:
        yield "warning: no token: every user and program on this machine can use your subscription."
    if not is_loopback(settings.host):
        names = ", ".join(("localhost", *settings.allowed_hosts))
        yield f"Requests must name this server {names} (KIRO_MCP_ALLOWED_HOSTS)."
    if token.secret:
        yield f"Clients must send the token in {token.where}."
    url = f"http://{in_url(settings.host)}:{port}"
    if settings.api:
        yield f"Serving OpenAI's API at {url}/v1 and Anthropic's at {url}."
    yield f"Serving MCP at {url}{path} until Ctrl-C."
