"""What OpenTelemetry is told of calls to the model, and what it is not."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest
from anyio import fail_after
from mcp.client import Client
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.attributes import server_attributes as of_servers
from opentelemetry.trace import SpanKind, StatusCode

from kiro_mcp.chat import Fault, Reply, TextPart, Usage
from kiro_mcp.client.telemetry import Telemetry
from kiro_mcp.emulator import EMULATOR_API_KEY, Pause, RunningEmulator, Send, frames
from kiro_mcp.errors import KiroError
from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.settings import Settings
from tests.client.driving import CONVERSATION_ID, driven, prompt, refusal
from tests.support.telemetry import Kept

SECRET = "the unspoken word"

CONVENTION = {
    value
    for module in (gen_ai_attributes, gen_ai_metrics, error_attributes, of_servers)
    for name, value in vars(module).items()
    if name.isupper()
}

EXACT = Reply(
    parts=(TextPart(text=SECRET),),
    stop_reason="end_turn",
    model_id="claude-sonnet-4.5",
    usage=Usage(
        input_tokens=900,
        output_tokens=70,
        cache_read_tokens=500,
        cache_write_tokens=40,
        is_estimated=False,
        credits=0.25,
    ),
)


@asynccontextmanager
async def connected(emulator: RunningEmulator, kept: Kept) -> AsyncGenerator[Client]:
    """Connect an MCP client to a server whose calls are kept."""
    settings = Settings.load(
        {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": EMULATOR_API_KEY}
    )
    server = build_server(lambda: Engine(settings, telemetry=kept.telemetry))
    with fail_after(20):
        async with Client(server, mode="2026-07-28") as client:
            yield client


async def test_a_call_to_the_model_is_one_span_of_the_convention(
    emulator: RunningEmulator,
) -> None:
    """The semantic conventions for generative AI, v1.41.0."""
    kept = Kept()
    async with driven(emulator.url, telemetry=kept.telemetry) as client:
        reply = await client.ask(replace(prompt(), model="claude-sonnet-4.5", max_tokens=50))
    (span,) = kept.spans
    said = dict(span.attributes or {})
    assert (span.name, span.kind) == ("chat claude-sonnet-4.5", SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.UNSET
    first_chunk = said.pop("gen_ai.response.time_to_first_chunk")
    assert isinstance(first_chunk, float)
    assert first_chunk > 0
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "kiro",
        "gen_ai.request.model": "claude-sonnet-4.5",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.conversation.id": CONVERSATION_ID,
        "gen_ai.response.model": reply.model_id,
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.usage.input_tokens": reply.usage.input_tokens,
        "gen_ai.usage.output_tokens": reply.usage.output_tokens,
        "kiro_mcp.usage.estimated": True,
        "kiro_mcp.credits": reply.usage.credits,
        "server.address": "127.0.0.1",
        "server.port": int(emulator.url.rpartition(":")[2]),
    }


def test_every_name_is_the_conventions_or_marked_as_ours() -> None:
    """OpenTelemetry's own list of names, from its package."""
    kept = Kept()
    request = replace(prompt(), max_tokens=1, output_schema={})
    with kept.telemetry.inference(request) as call:
        call.sends_to("https://a.example")
        call.begins(lambda: replace(EXACT, fault=KiroError("?")))
    (span,) = kept.spans
    names = {*(span.attributes or {}), *kept.metrics}
    assert {name for name in names if not name.startswith("kiro_mcp.")} <= CONVENTION
    assert "error.type" in names


async def test_telemetry_holds_no_word_of_the_prompt_or_the_answer(
    emulator: RunningEmulator,
) -> None:
    """Telemetry may go to people who must not see the prompt."""
    kept = Kept()
    emulator.state.enqueue((Send(frames.text(SECRET) + frames.ending()),), (refusal(400, SECRET),))
    async with driven(emulator.url, telemetry=kept.telemetry) as client:
        await client.ask(replace(prompt(SECRET), system=SECRET))
        with pytest.raises(KiroError):
            await client.ask(prompt(SECRET))
    assert len(kept.spans) == 2
    assert SECRET not in "".join(span.to_json() for span in kept.spans)
    assert SECRET not in repr(kept.metrics)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("throttle", "rate_limited"),
        ("quota", "quota_exhausted"),
        ("suspended", "account_suspended"),
        ("empty", "empty_response"),
    ],
)
async def test_a_failed_call_is_a_span_with_the_errors_code(
    script: str, code: str, emulator: RunningEmulator
) -> None:
    """The convention's `error.type`; the text is not told, for it may name what was asked."""
    kept = Kept()
    async with driven(emulator.url, telemetry=kept.telemetry, KIRO_MCP_MAX_RETRIES="0") as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(prompt(f"/emulate {script}"))
    assert caught.value.code == code
    (span,) = kept.spans
    assert (span.attributes or {})["error.type"] == code
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert not span.events
    (duration,) = kept.points("gen_ai.client.operation.duration")
    assert (duration.attributes or {})["error.type"] == code


@pytest.mark.parametrize(
    ("script", "code"),
    [("reset", "stream_broken"), ("bad_crc", "stream_broken"), ("exception", "model_busy")],
)
async def test_an_answer_that_was_cut_off_is_recorded_with_its_cause_and_its_cost(
    script: str, code: str, emulator: RunningEmulator
) -> None:
    """The caller got a part, and paid for it."""
    kept = Kept()
    async with driven(emulator.url, telemetry=kept.telemetry) as client:
        reply = await client.ask(prompt(f"/emulate {script}"))
    assert reply.truncated
    (span,) = kept.spans
    said = span.attributes or {}
    assert said["error.type"] == code
    assert said["gen_ai.response.finish_reasons"] == ("truncated",)
    assert said["gen_ai.usage.output_tokens"] == reply.usage.output_tokens


async def test_a_call_with_all_its_retries_is_one_span(emulator: RunningEmulator) -> None:
    """The convention: a span is the operation as its caller sees it."""
    kept = Kept()
    async with driven(emulator.url, telemetry=kept.telemetry) as client:
        await client.ask(prompt("/emulate throttle 2"))
    assert len(emulator.state.requests_to("GenerateAssistantResponse")) == 3
    (span,) = kept.spans
    assert "error.type" not in (span.attributes or {})


async def test_a_cancelled_call_is_recorded_with_the_part_that_arrived(
    emulator: RunningEmulator,
) -> None:
    """The part that arrived has been paid for."""
    kept = Kept()
    emulator.state.enqueue((Send(frames.text("The beginning")), Pause(60)))
    async with driven(emulator.url, telemetry=kept.telemetry) as client:
        with anyio.CancelScope() as scope:
            async with client.stream(prompt()) as answer:
                await anext(answer)
                scope.cancel()
                await anext(answer)
    (span,) = kept.spans
    said = span.attributes or {}
    assert said["error.type"] == "cancelled"
    assert said["gen_ai.usage.output_tokens"]


def test_metrics_have_the_conventions_units_and_buckets() -> None:
    """The semantic conventions for generative AI, v1.41.0."""
    kept = Kept()
    times = iter([10.0, 10.5, 11.0, 13.0])
    telemetry = Telemetry(kept.tracers, kept.meters, clock=lambda: next(times))
    with telemetry.inference(prompt()) as call:
        call.sends_to("https://a.example")
        call.begins(lambda: EXACT)
    assert {name: metric.unit for name, metric in kept.metrics.items()} == {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.token.usage": "{token}",
        "kiro_mcp.client.credit.usage": "{credit}",
    }
    (duration,) = kept.points("gen_ai.client.operation.duration")
    assert duration.sum == 3.0
    assert duration.explicit_bounds == pytest.approx(
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
    )
    tokens = {
        (point.attributes or {})["gen_ai.token.type"]: point
        for point in kept.points("gen_ai.client.token.usage")
    }
    assert {kind: point.sum for kind, point in tokens.items()} == {"input": 900, "output": 70}
    assert tokens["input"].explicit_bounds[:3] == (1, 4, 16)
    assert tokens["input"].explicit_bounds[-1] == 67_108_864
    assert "gen_ai.conversation.id" not in (duration.attributes or {})
    (span,) = kept.spans
    assert (span.attributes or {})["gen_ai.response.time_to_first_chunk"] == 0.5


def test_estimated_tokens_are_not_counted() -> None:
    """The convention: only counts from the provider are reported as metrics."""
    kept = Kept()
    estimated = replace(EXACT, usage=replace(EXACT.usage, is_estimated=True))
    with kept.telemetry.inference(prompt()) as call:
        call.begins(lambda: estimated)
    assert "gen_ai.client.token.usage" not in kept.metrics
    assert (kept.spans[0].attributes or {})["kiro_mcp.usage.estimated"] is True


def test_a_span_names_the_last_host_that_was_tried() -> None:
    """Where a call moves on to another endpoint."""
    kept = Kept()
    with kept.telemetry.inference(prompt()) as call:
        call.sends_to("https://first.example/a?b=c")
        call.sends_to("http://second.example:8080")
    said = kept.spans[0].attributes or {}
    assert (said["server.address"], said["server.port"]) == ("second.example", 8080)


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("https://runtime.us-east-1.kiro.dev/a", "runtime.us-east-1.kiro.dev", 443),
        ("http://localhost/", "localhost", 80),
        ("http://[::1]:8787", "::1", 8787),
    ],
)
def test_a_span_has_the_servers_host_and_port(url: str, address: str, port: int) -> None:
    """The convention: the port is required where there is an address."""
    kept = Kept()
    with kept.telemetry.inference(prompt()) as call:
        call.sends_to(url)
    said = kept.spans[0].attributes or {}
    assert (said["server.address"], said["server.port"]) == (address, port)


@pytest.mark.parametrize(
    ("error", "reply", "code"),
    [
        (None, None, None),
        (None, EXACT, None),
        (KiroError("?", code="timeout"), None, "timeout"),
        (KiroError("?", code="timeout"), EXACT, "timeout"),
        (None, replace(EXACT, fault=KiroError("?", code="stream_broken")), "stream_broken"),
        (None, replace(EXACT, fault=Fault(name="ThrottlingException")), "rate_limited"),
        (ValueError("?"), None, "internal_error"),
        (GeneratorExit(), EXACT, "cancelled"),
    ],
)
def test_every_end_of_a_call_has_a_code_of_the_closed_list(
    error: BaseException | None, reply: Reply | None, code: str | None
) -> None:
    """The same code that the caller meets."""
    kept = Kept()
    with suppress(BaseException), kept.telemetry.inference(prompt()) as call:
        if reply:
            call.begins(lambda: reply)
        if error:
            raise error
    assert (kept.spans[0].attributes or {}).get("error.type") == code


async def test_a_traceparent_in_a_requests_meta_is_the_ancestor(emulator: RunningEmulator) -> None:
    """MCP's trace context in `_meta` (SEP-414), which the SDK reads; without one, a new trace."""
    kept = Kept()
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    meta: Any = {"traceparent": f"00-{trace}-{parent}-01"}
    async with connected(emulator, kept) as client:
        await client.call_tool("ask_claude", {"prompt": "hi"}, meta=meta)
        await client.call_tool("ask_claude", {"prompt": "hi"})
    told, new = kept.spans
    assert told.context
    assert told.parent
    # The SDK's span would stand between, but it is made only where the whole process is traced.
    assert (told.context.trace_id, told.parent.span_id) == (int(trace, 16), int(parent, 16))
    assert new.parent is None


async def test_both_questions_of_a_typed_answer_are_spans(emulator: RunningEmulator) -> None:
    """Each is a call to the model, and costs."""
    kept = Kept()
    emulator.state.enqueue((Send(frames.text("four") + frames.ending()),))
    async with connected(emulator, kept) as client:
        await client.call_tool("ask_claude", {"prompt": "hi", "output_schema": {"type": "object"}})
    assert [(span.attributes or {})["gen_ai.output.type"] for span in kept.spans] == ["json"] * 2
