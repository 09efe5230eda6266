"""`kiro-mcp serve --transport http --api`, as a process."""

import os
import signal

from anyio import fail_after

from tests.support.api import CHAT, MESSAGES, apis_offline, question

START_SECONDS = 30


async def test_the_apis_are_served_beside_mcp_and_their_streams_end_with_the_server() -> None:
    """Offline, so that anybody can try it; a stream that is cut off ends with an error event."""
    with fail_after(START_SECONDS):
        async with apis_offline() as (server, client):
            answer = await client.post(CHAT, json=question(CHAT, "hello"))
            assert "You said: hello" in answer.text
            assert (await client.post("/mcp", json={})).status_code != 404
            body = question(MESSAGES, "/emulate slow 60\nhello", stream=True)
            text = ""
            async with client.stream("POST", MESSAGES, json=body) as response:
                async for piece in response.aiter_text():
                    if not text:
                        os.kill(server.pid, signal.SIGTERM)
                    text += piece
            assert await server.wait() == 143
    assert "event: error" in text
    assert "message_stop" not in text
