"""A server that sends exactly the bytes that a test gives it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream

Conversation = Callable[[SocketStream], Awaitable[None]]


@asynccontextmanager
async def speaking(conversation: Conversation) -> AsyncGenerator[str]:
    """Serve every client on a loopback port with this conversation; yield the address."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, conversation)
        yield f"http://127.0.0.1:{port}"
        tasks.cancel_scope.cancel()


def saying(*pieces: bytes) -> Conversation:
    """Wait for a request, say the pieces and hang up."""

    async def conversation(client: SocketStream) -> None:
        async with client:
            await client.receive()
            for piece in pieces:
                await client.send(piece)

    return conversation
