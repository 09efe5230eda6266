"""Secrets of unknown shape that a service quotes reach nobody.

AWS, for example, answers a malformed Authorization header with the header itself.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote_plus

import anyio
from anyio.abc import SocketAttribute, SocketStream

from kiro_mcp.emulator import frames
from tests.cli.test_commands import run
from tests.support.mcp import connected
from tests.support.stdio import environment, started

KEY = "opaque/key+of.no~known=shape-4711"
HEADER = "gateway pass 0815"
REFRESH = "opaque/refresh+of.no~known=shape-4712"
CLIENT_SECRET = "opaque client secret 4713"
SECRETS = (KEY, HEADER, REFRESH, CLIENT_SECRET)

Answer = Callable[[str], bytes]
"""Makes the answer to a request out of what it quotes."""


def refusal(status: int, name: str = "", **headers: str) -> Answer:
    def make(said: str) -> bytes:
        body = {"__type": name, "message": f"Invalid key=value pair in: '{said}'."}
        return http(status, json.dumps(body).encode(), **headers)

    return make


def http(status: int, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def stream(*parts: bytes) -> bytes:
    return http(200, b"".join(parts), "application/vnd.amazon.eventstream")


ANSWERS: tuple[Answer, ...] = (
    *(refusal(status) for status in (400, 401, 402, 403, 404, 408, 409, 413, 429, 500, 503)),
    *(refusal(400, name) for name in ("ThrottlingException", "ValidationException")),
    lambda said: refusal(403, said)(said),
    lambda said: http(400, json.dumps({"reason": said, "error": {"message": said}}).encode()),
    lambda said: http(403, said.encode(), "text/plain"),
    lambda said: http(400, json.dumps({"message": "x" * 470 + said}).encode()),
    lambda said: http(400, json.dumps({"message": quote(said, safe="")}).encode()),
    lambda said: http(403, b"{}", **{"x-amzn-errortype": f"{said}:http://x"}),
    lambda said: http(500, b"", **{"x-amzn-requestid": said}),
    lambda said: http(302, b"", Location=f"http://127.0.0.1/?{quote(said)}"),
    lambda said: http(200, json.dumps({"message": said}).encode()),
    lambda said: stream(frames.exception("AccessDeniedException", said)),
    lambda said: stream(frames.text("Hello"), frames.exception("InternalServerException", said)),
)


def sent_secrets(request: bytes) -> str:
    """Return what a request carried in its headers and its body."""
    head, _, body = request.decode().partition("\r\n\r\n")
    quoted = [line.partition(": ")[2].removeprefix("Bearer ") for line in head.split("\r\n")]
    bearers = [value for value in quoted if any(secret in value for secret in SECRETS)]
    return " ".join([*bearers, *(one for one in SECRETS if one in unquote_plus(body))])


@asynccontextmanager
async def quoting(answers: tuple[Answer, ...]) -> AsyncGenerator[str]:
    """Serve a host that answers each request with the next answer, and from then on the last."""
    left = list(answers)

    async def handle(connection: SocketStream) -> None:
        async with connection:
            request = b""
            while not is_whole(request):
                request += await connection.receive()
            answer = left.pop(0) if len(left) > 1 else left[0]
            await connection.send(answer(sent_secrets(request)))

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


def is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = next(
        (line.partition(b":")[2] for line in head.lower().split(b"\r\n") if b"content-len" in line),
        b"0",
    )
    return bool(end) and len(body) >= int(length)


def assert_secretless(text: str) -> None:
    for secret in SECRETS:
        for written in (secret, quote(secret, safe=""), secret[:16]):
            assert written not in text
    assert "[redacted]" in text or "*****" in text, text


async def test_a_key_that_the_service_quotes_reaches_no_result_file_or_log(tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with quoting(ANSWERS) as url:
            environ = environment(
                HOME=str(tmp_path),
                KIRO_MCP_ENDPOINT_URL=url,
                KIRO_API_KEY=KEY,
                KIRO_API_REGION="us-east-1",
                KIRO_MCP_EXTRA_HEADERS=json.dumps({"X-Gateway": HEADER}),
                KIRO_MCP_DEBUG_MODE="all",
                KIRO_MCP_LOG_LEVEL="DEBUG",
                KIRO_MCP_FIRST_TOKEN_MAX_RETRIES="0",
            )
            async with started(environ) as server:
                await server.initialize()
                results = [await server.call("ask_claude", prompt="x") for _ in ANSWERS]
                stored = await server.request("resources/list")
                logged = server.stderr
            files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert [result["isError"] for result in results].count(True) >= len(ANSWERS) - 2
    assert sum("[redacted]" in json.dumps(result) for result in results) > len(ANSWERS) / 2
    assert_secretless(json.dumps([results, stored], ensure_ascii=False))
    assert_secretless(logged)
    assert len(files) > 5 * len(ANSWERS)
    for data in files:
        for secret in (KEY, HEADER, KEY[:16]):
            assert secret.encode() not in data
            assert quote(secret, safe="").encode() not in data


async def test_a_key_that_the_service_quotes_is_not_printed(tmp_path: Path) -> None:
    async with quoting((refusal(403),)) as url:
        environ = {"HOME": str(tmp_path), "KIRO_MCP_ENDPOINT_URL": url, "KIRO_API_KEY": KEY}
        done = await run("status", "--json", **environ)
    assert_secretless((done.stdout + done.stderr).decode())


async def test_a_login_that_the_sign_in_service_quotes_reaches_no_result(tmp_path: Path) -> None:
    def refuse(said: str) -> bytes:
        return http(400, json.dumps({"error": "odd", "error_description": said}).encode())

    async with (
        quoting((refuse,)) as url,
        connected(
            HOME=str(tmp_path),
            KIRO_MCP_ENDPOINT_URL=url,
            KIRO_REFRESH_TOKEN=f"{REFRESH}|an id|{CLIENT_SECRET}|idc",
        ) as client,
    ):
        status = await client.call_tool("login", {"action": "status"})
        asked = await client.call_tool("ask_claude", {"prompt": "x"})
    assert_secretless(status.model_dump_json() + asked.model_dump_json())
