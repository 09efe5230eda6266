"""HTTP at the edge: what a connection does wrong, told in our errors."""

import gc
import gzip
from collections.abc import AsyncGenerator
from contextlib import suppress

import anyio
import pytest
from anyio import fail_after
from anyio.abc import SocketStream

from kiro_mcp.client.http import MAX_REFUSAL_BYTES, HttpPool
from kiro_mcp.errors import AnswerBroken, CallCancelled, InvalidRequest, ServiceUnavailable
from tests.support.wire import saying, speaking

AT_ONCE = 40


@pytest.fixture
async def pool() -> AsyncGenerator[HttpPool]:
    pool = HttpPool(connect_timeout_seconds=5)
    with fail_after(10):
        yield pool
        await pool.aclose()


async def test_a_host_that_cannot_be_reached_is_named(pool: HttpPool) -> None:
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1") as caught:
        async with pool.request("POST", "http://127.0.0.1:1/", headers={}, body=b""):
            pass
    assert caught.value.code == "network_error"


async def test_a_proxy_that_cannot_be_reached_is_named_without_its_password() -> None:
    """With an old proxy in the environment, the service seems to be down."""
    pool = HttpPool(connect_timeout_seconds=5, proxy_url="http://me:hunter2@127.0.0.1:1")
    with (
        fail_after(10),
        pytest.raises(ServiceUnavailable, match=r"proxy at '127\.0\.0\.1:1'") as no,
    ):
        async with pool.request("POST", "http://service.invalid/", headers={}, body=b""):
            pass
    await pool.aclose()
    assert "hunter2" not in str(no.value)


async def test_a_host_that_hangs_up_without_an_answer_is_unreachable(pool: HttpPool) -> None:
    """Nothing was delivered, so the call may be made again."""
    async with speaking(saying()) as url:
        with pytest.raises(ServiceUnavailable):
            async with pool.request("POST", url, headers={}, body=b""):
                pass


async def test_a_header_that_cannot_be_sent_is_not_quoted(pool: HttpPool) -> None:
    """The quoted header may be the one with the token."""
    headers = {"Authorization": "Bearer one\ntwo"}
    async with speaking(saying()) as url:
        with pytest.raises(ServiceUnavailable) as caught:
            async with pool.request("POST", url, headers=headers, body=b""):
                pass
    assert "one" not in str(caught.value)


async def test_a_body_that_breaks_off_gives_its_beginning_and_then_an_error(
    pool: HttpPool,
) -> None:
    """What arrived is never lost."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning"
    async with (
        speaking(saying(head)) as url,
        pool.request("POST", url, headers={}, body=b"") as response,
    ):
        chunks = response.chunks()
        assert await anext(chunks) == b"beginning"
        with pytest.raises(AnswerBroken, match="broke off"):
            await anext(chunks)


async def test_the_beginning_of_a_refusal_that_breaks_off_is_returned(pool: HttpPool) -> None:
    """The status already says what happened."""
    head = b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n<html>"
    async with (
        speaking(saying(head)) as url,
        pool.request("POST", url, headers={}, body=b"") as response,
    ):
        assert response.status == 500
        assert await response.beginning() == b"<html>"


async def test_only_the_beginning_of_a_long_refusal_is_read(pool: HttpPool) -> None:
    """A proxy's page may be of any length."""
    size = MAX_REFUSAL_BYTES * 3
    head = f"HTTP/1.1 500 No\r\nContent-Length: {size}\r\n\r\n".encode()
    async with (
        speaking(saying(head, b"x" * size)) as url,
        pool.request("POST", url, headers={}, body=b"") as response,
    ):
        assert len(await response.beginning()) == MAX_REFUSAL_BYTES


async def test_a_redirect_is_not_followed(pool: HttpPool) -> None:
    """It would carry the bearer elsewhere."""
    head = b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with (
        speaking(saying(head)) as url,
        pool.request("POST", url, headers={"Authorization": "Bearer x"}, body=b"") as response,
    ):
        assert response.status == 307


async def test_closing_a_pool_that_was_never_used_does_nothing() -> None:
    await HttpPool(connect_timeout_seconds=1).aclose()


async def test_requests_to_other_machines_go_through_the_proxy() -> None:
    """Networks that let nothing else out."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with speaking(saying(head)) as url:
        pool = HttpPool(connect_timeout_seconds=5, proxy_url=url)
        with fail_after(20):
            async with pool.request("POST", "http://a.example/", headers={}, body=b"") as response:
                assert await response.beginning() == b"ok"
        await pool.aclose()


@pytest.mark.parametrize("scheme", ["http", "all"])
async def test_without_the_setting_the_systems_proxy_is_used(scheme: str) -> None:
    """What HTTPS_PROXY and ALL_PROXY say, and system settings on macOS and Windows."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with speaking(saying(head)) as url:
        said = {scheme: url.removeprefix("http://")}
        pool = HttpPool(connect_timeout_seconds=5, system_proxies=lambda: said)
        with fail_after(20):
            async with pool.request("POST", "http://a.example/", headers={}, body=b"") as response:
                assert await response.beginning() == b"ok"
        await pool.aclose()


@pytest.mark.parametrize(
    "exempted",
    [
        *("*", "other.example, a.invalid", ".invalid", "INVALID"),
        *("*.invalid", "a.invalid:80", "[::2]:1 a.invalid", "x\t*.invalid:80"),
    ],
)
async def test_hosts_that_the_system_exempts_are_reached_without_its_proxy(exempted: str) -> None:
    """NO_PROXY, as curl reads it."""
    asked: list[bytes] = []

    async def proxy(client: SocketStream) -> None:
        async with client:
            asked.append(await client.receive())

    async with speaking(proxy) as url:
        said = {"all": url, "no": exempted}
        pool = HttpPool(connect_timeout_seconds=5, system_proxies=lambda: said)
        with fail_after(30), pytest.raises(ServiceUnavailable):  # There is no such host.
            async with pool.request("POST", "http://a.invalid/", headers={}, body=b""):
                pass
        await pool.aclose()
    assert not asked


@pytest.mark.parametrize(
    ("exempted", "host", "is_exempt"),
    [
        ("192.0.2.0/24", "192.0.2.7", True),
        ("192.0.2.0/24", "198.51.100.7", False),
        ("[2001:db8::1]", "[2001:db8::1]", True),
        ("2001:db8::/32", "[2001:db8::1]", True),
        ("2001:db8::1", "[2001:db8::2]", False),
        ("a.invalid:81", "a.invalid", False),
        ("*.invalid", "notinvalid", False),
        ("*.", "a.invalid", False),
    ],
)
async def test_networks_and_ports_are_exempted_too(
    exempted: str, host: str, is_exempt: bool
) -> None:
    asked: list[bytes] = []

    async def proxy(client: SocketStream) -> None:
        async with client:
            asked.append(await client.receive())
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with speaking(proxy) as url:
        said = {"all": url, "no": exempted}
        # Short only where nobody answers: documentation's own networks.
        seconds = 0.01 if is_exempt else 10
        pool = HttpPool(connect_timeout_seconds=seconds, system_proxies=lambda: said)
        with fail_after(30), suppress(ServiceUnavailable):
            async with pool.request("POST", f"http://{host}/", headers={}, body=b""):
                pass
        await pool.aclose()
    assert bool(asked) is not is_exempt


# After such an error httpcore leaves the connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_errors_of_the_libraries_below_become_our_own() -> None:
    """The SOCKS library has errors of its own, which the HTTP library lets through."""
    reply = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    async with speaking(saying(reply)) as url:
        proxies = (url.replace("http", "socks5"), "http://127.0.0.1:99999")
        for proxy in proxies:
            pool = HttpPool(connect_timeout_seconds=5, system_proxies=lambda: {"all": proxy})  # noqa: B023
            with fail_after(10), pytest.raises(ServiceUnavailable) as caught:
                async with pool.request("POST", "http://a.example/", headers={}, body=b""):
                    pass
            assert caught.value.code == "network_error"
            assert "through the proxy at '127.0.0.1:" in caught.value.message
            await pool.aclose()
            del caught
            gc.collect()


async def test_an_invalid_url_is_an_error_before_anything_is_sent(pool: HttpPool) -> None:
    for url in ("http://a..example/", "http://127.0.0.1:99999/", "http://a\0b/"):
        with pytest.raises((InvalidRequest, ServiceUnavailable)):
            async with pool.request("POST", url, headers={}, body=b""):
                pass


async def test_cookies_are_not_stored(pool: HttpPool) -> None:
    """Nothing that one host sets reaches another request."""
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\nok"
    said: list[bytes] = []

    async def host(client: SocketStream) -> None:
        async with client:
            for _ in range(2):
                said.append(await client.receive())
                await client.send(head)

    async with speaking(host) as url:
        for _ in range(2):
            async with pool.request("POST", url, headers={}, body=b"") as response:
                await response.beginning()
    assert len(said) == 2
    assert b"cookie" not in said[1].lower()


async def test_requests_to_this_machine_do_not_go_through_the_proxy() -> None:
    """A proxy could not reach it."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with speaking(saying(head)) as url:
        pool = HttpPool(connect_timeout_seconds=5, proxy_url="http://127.0.0.1:1")
        with fail_after(20):
            async with pool.request("POST", url, headers={}, body=b"") as response:
                assert await response.beginning() == b"ok"
        await pool.aclose()


async def test_a_socks_proxy_is_spoken_to_in_its_own_protocol() -> None:
    """RFC 1928: versions and methods, then the host's name, then the request."""
    said: list[bytes] = []
    answers = (
        b"\x05\x00",
        b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )

    async def proxy(client: SocketStream) -> None:
        async with client:
            for answer in answers:
                said.append(await client.receive())
                await client.send(answer)

    async with speaking(proxy) as url:
        pool = HttpPool(connect_timeout_seconds=5, proxy_url=url.replace("http", "socks5"))
        with fail_after(20):
            async with pool.request("POST", "http://a.example/", headers={}, body=b"") as response:
                assert await response.beginning() == b"ok"
        await pool.aclose()
    assert said[0] == b"\x05\x01\x00"
    assert b"a.example" in said[1]


@pytest.mark.parametrize("url", ["ftp://me:secret@example.com", "http://me:secret#1@example.com:1"])
async def test_an_invalid_proxy_url_is_refused_without_showing_its_password(url: str) -> None:
    """An error is shown in a chat. `#` ends the address where it is not escaped."""
    pool = HttpPool(connect_timeout_seconds=5, proxy_url=url)
    with pytest.raises(InvalidRequest) as caught:
        async with pool.request("POST", "http://a.example/", headers={}, body=b""):
            pass
    assert "secret" not in str(caught.value)


async def test_a_closed_pool_opens_nothing_more() -> None:
    """Nobody would close a connection that is opened after the end."""
    pool = HttpPool(connect_timeout_seconds=5)
    await pool.aclose()
    with pytest.raises(CallCancelled):
        async with pool.request("POST", "http://127.0.0.1:1/", headers={}, body=b""):
            pass


async def test_a_connection_is_reused_for_the_next_request() -> None:
    """A handshake for each call would cost more than the rest of our part."""
    connections: list[int] = []

    async def twice(client: SocketStream) -> None:
        connections.append(1)
        async with client:
            for _ in range(2):
                await client.receive()
                await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with speaking(twice) as url:
        pool = HttpPool(connect_timeout_seconds=5)
        with fail_after(20):
            for _ in range(2):
                async with pool.request("POST", url, headers={}, body=b"") as response:
                    assert await response.beginning() == b"ok"
        await pool.aclose()
    assert connections == [1]


async def test_all_connections_of_many_requests_at_once_are_reused(pool: HttpPool) -> None:
    """A handshake for each of them would cost more than the rest of our part."""
    connections = 0
    all_are_there = anyio.Event()

    async def host(client: SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with client:
            for _ in range(2):
                await client.receive()
                if connections == AT_ONCE:
                    all_are_there.set()
                await all_are_there.wait()
                await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def ask(url: str) -> None:
        async with pool.request("POST", url, headers={}, body=b"") as response:
            assert await response.beginning() == b"ok"

    async with speaking(host) as url:
        with fail_after(10):
            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    for _ in range(AT_ONCE):
                        tasks.start_soon(ask, url)
    assert connections == AT_ONCE


async def test_an_answer_that_was_compressed_all_the_same_is_read(pool: HttpPool) -> None:
    """RFC 9110: a proxy may compress what nobody asked to be compressed."""
    body = gzip.compress(b"all of it")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    async with (
        speaking(saying(head.encode() + body)) as url,
        pool.request("POST", url, headers={}, body=b"") as response,
    ):
        assert await response.beginning() == b"all of it"
