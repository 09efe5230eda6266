"""A script into an HTTP answer, played over a connection that the client may leave at any time."""

from collections.abc import Mapping
from typing import assert_never

import anyio
from anyio.lowlevel import checkpoint
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kiro_mcp.emulator import steps
from kiro_mcp.emulator.refusals import Refusal
from kiro_mcp.emulator.state import EmulatorState, SeenRequest

EVENT_STREAM = "application/vnd.amazon.eventstream"


class ScriptedAnswer:
    """One script, ready to be played to the caller of one request; an ASGI application."""

    def __init__(
        self,
        state: EmulatorState,
        request: SeenRequest,
        script: steps.Script,
        *,
        headers: Mapping[str, str],
        preface: bytes = b"",
    ) -> None:
        self._state = state
        self._request = request
        self._script = script
        self._headers = headers
        self._preface = preface
        self._has_begun = False
        self._is_over = False
        self._client_left = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Play it, until its end or the client's leaving."""
        self._state.stream_opened()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, receive, tasks.cancel_scope)
                await self._play(scope, receive, send)
                self._is_over = True
                tasks.cancel_scope.cancel()
        finally:
            self._state.stream_closed(by_client=self._client_left)

    async def _watch(self, receive: Receive, play: anyio.CancelScope) -> None:
        await receive()  # the request was read to its end: all that can come is a disconnect
        if not self._is_over:
            self._client_left = True
            play.cancel()

    async def _play(self, scope: Scope, receive: Receive, send: Send) -> None:
        for step in self._script:
            match step:
                case steps.Send():
                    await self._send(send, step.data)
                case steps.Pause():
                    await anyio.sleep(step.seconds)
                case steps.Until(prompts):
                    await self._state.until(lambda state: state.prompts >= prompts)
                case steps.Cut():
                    await self._begin(send)
                    return
                case steps.HttpAnswer() | Refusal():
                    self._is_over = True
                    await self._other_answer(step)(scope, receive, send)
                    return
                case _:
                    assert_never(step)
        await self._begin(send)
        self._is_over = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        headers = {"content-type": EVENT_STREAM, **self._headers}
        head = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await self._send(send, self._preface)

    async def _send(self, send: Send, data: bytes) -> None:
        await self._begin(send)
        size = self._state.chunk_bytes
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await checkpoint()  # let a client in the same event loop read this far

    def _other_answer(self, step: steps.HttpAnswer | Refusal) -> Response:
        if isinstance(step, Refusal):
            response = step.to_response(is_rpc=self._request.is_rpc)
        else:
            response = Response(
                step.body, step.status, dict(step.headers), media_type=step.content_type
            )
        response.headers.update(self._headers)
        return response
