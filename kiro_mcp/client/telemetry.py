"""Traces and metrics of the calls to the model, for whoever has set up OpenTelemetry.

The names are those of the semantic conventions for generative AI, v1.41.0, the last that were
released: https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai (their
successor, semantic-conventions-genai, renames the metrics and has no release yet). Of each call
to the model there is one span, with all its retries, below the span that the SDK of MCP makes of
the message that asked for it; so a `traceparent` in a request's `_meta` becomes its ancestor.

Only the API of OpenTelemetry is used: without its SDK nothing is kept and nothing is sent. No
prompt, answer, error text or token is ever in what it gets.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

from opentelemetry.trace import (
    SpanKind,
    StatusCode,
    TracerProvider,
    get_tracer,
    get_tracer_provider,
)

from kiro_mcp._version import __version__
from kiro_mcp.chat import ChatRequest, Fault, Reply, Usage
from kiro_mcp.client.classify import classify
from kiro_mcp.errors import ErrorCode, KiroError

if TYPE_CHECKING:  # Metrics are imported where they are used first: 4 ms that a start can spare.
    from opentelemetry.metrics import MeterProvider

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

DURATION_BUCKETS: Final = tuple(0.01 * 2**power for power in range(14))
"""In seconds: 0.01 to 81.92, as the convention says."""

TOKEN_BUCKETS: Final = tuple(4**power for power in range(14))
"""1 to 67,108,864, as the convention says."""

FLUSH_SECONDS: Final = 0.25
"""How long handing on what is held back may take; a server must be gone in half a second."""

_SCOPE: Final = "kiro_mcp"

Value = str | bool | int | float | list[str]
Attributes = dict[str, Value]


class Answer(Protocol):
    """An answer on its way."""

    @property
    def so_far(self) -> Reply:
        """What has come of it until now."""
        ...


class Inference:
    """One call to the model, while it is being made."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sent_at = 0.0
        self.answer: Answer | None = None
        self.attributes: Attributes = {}

    def sends_to(self, url: str) -> None:
        """Note where an attempt goes; the last one counts."""
        self._sent_at = self._clock()
        self.attributes |= server_attributes(url)

    def begins(self, answer: Answer) -> None:
        """Note the answer, whose first delta has just come."""
        self.answer = answer
        self.attributes["gen_ai.response.time_to_first_chunk"] = self._clock() - self._sent_at


class Telemetry:
    """Makes the spans and metrics of calls to the model.

    Args:
        tracer_provider: Takes the spans; None for the one that the process has set up, if any.
        meter_provider: Takes the metrics; None likewise.
        clock: Gives seconds, from any start.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: "MeterProvider | None" = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        # Imported here to keep start-up light.
        from opentelemetry.metrics import get_meter

        self._clock = clock
        self._tracer = get_tracer(_SCOPE, __version__, tracer_provider, SCHEMA_URL)
        meter = get_meter(_SCOPE, __version__, meter_provider, SCHEMA_URL)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._credits = meter.create_counter(
            "kiro_mcp.client.credit.usage",
            unit="{credit}",
            description="Credits that the service charged.",
        )

    @contextmanager
    def inference(self, request: ChatRequest) -> Generator[Inference]:
        """Cover one call to the model, from its first attempt to the end of its answer."""
        started = self._clock()
        with self._tracer.start_as_current_span(
            f"chat {request.model}",
            kind=SpanKind.CLIENT,
            attributes=request_attributes(request),
            record_exception=False,  # Its text may name what was asked.
            set_status_on_exception=False,
        ) as span:
            call = Inference(self._clock)
            error: BaseException | None = None
            try:
                yield call
            except BaseException as caught:
                error = caught
                raise
            finally:
                reply = call.answer.so_far if call.answer else None
                code = error_type(error, reply)
                if span.is_recording():
                    span.set_attributes(
                        {**call.attributes, **reply_attributes(reply), **_error(code)}
                    )
                    if code:
                        span.set_status(StatusCode.ERROR)
                self._measure(request, call, reply, code, self._clock() - started)

    def _measure(
        self,
        request: ChatRequest,
        call: Inference,
        reply: Reply | None,
        code: ErrorCode | None,
        seconds: float,
    ) -> None:
        common = metric_attributes(request, call.attributes, reply)
        self._duration.record(seconds, {**common, **_error(code)})
        if reply is None:
            return
        for kind, count in exact_tokens(reply.usage).items():
            self._tokens.record(count, {**common, "gen_ai.token.type": kind})
        if reply.usage.credits:
            self._credits.add(reply.usage.credits, common)


# --- what is said, as values --------------------------------------------------------------

_OPERATION: Final[Mapping[str, str]] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "kiro",
}


def request_attributes(request: ChatRequest) -> Attributes:
    """Return what a span says of what is asked; known before anything is sent."""
    asked: Attributes = {
        **_OPERATION,
        "gen_ai.request.model": request.model,
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": request.conversation_id,
    }
    if request.max_tokens:
        asked["gen_ai.request.max_tokens"] = request.max_tokens
    if request.output_schema is not None:
        asked["gen_ai.output.type"] = "json"
    return asked


def server_attributes(url: str) -> Attributes:
    """Return what a span says of where a request goes."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def reply_attributes(reply: Reply | None) -> Attributes:
    """Return what a span says of an answer, or of what came of one; nothing of its content."""
    if reply is None:
        return {}
    usage = reply.usage
    said: Attributes = {
        "gen_ai.response.finish_reasons": [reply.stop_reason],
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "kiro_mcp.usage.estimated": usage.is_estimated,
    }
    if reply.model_id:
        said["gen_ai.response.model"] = reply.model_id
    if usage.cache_read_tokens:
        said["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        said["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write_tokens
    if usage.credits is not None:
        said["kiro_mcp.credits"] = usage.credits
    return said


def metric_attributes(
    request: ChatRequest, server: Mapping[str, Value], reply: Reply | None
) -> Attributes:
    """Return what every metric of a call is told apart by: few values each, unlike a span's."""
    common: Attributes = {**_OPERATION, "gen_ai.request.model": request.model}
    common |= {name: server[name] for name in ("server.address", "server.port") if name in server}
    if reply and reply.model_id:
        common["gen_ai.response.model"] = reply.model_id
    return common


def exact_tokens(usage: Usage) -> dict[str, int]:
    """Return the tokens to count, by type; {} for estimates, which the convention forbids there."""
    if usage.is_estimated:
        return {}
    return {"input": usage.input_tokens, "output": usage.output_tokens}


def error_type(error: BaseException | None, reply: Reply | None) -> ErrorCode | None:
    """Return the code of what a call ended with: what was raised, or what cut its answer off."""
    ending = error or (reply.fault if reply else None)
    match ending:
        case None:
            return None
        case Fault():
            return classify(ending).code
        case KiroError():
            return ending.code
        case Exception():
            return "internal_error"
        case _:
            return "cancelled"


def _error(code: ErrorCode | None) -> Attributes:
    return {"error.type": code} if code else {}


# --- the end of a process -----------------------------------------------------------------


@runtime_checkable
class _Flushable(Protocol):
    """A provider of the SDK; the API's own hold nothing back."""

    def force_flush(self) -> bool: ...


def flush_telemetry(seconds: float = FLUSH_SECONDS) -> None:
    """Hand on what the process's SDK of OpenTelemetry still holds, as far as the time allows."""
    # Imported here to keep start-up light.
    from opentelemetry.metrics import get_meter_provider

    deadline = time.monotonic() + seconds
    flushes = [
        Thread(target=provider.force_flush, daemon=True)
        for provider in (get_tracer_provider(), get_meter_provider())
        if isinstance(provider, _Flushable)
    ]
    for flush in flushes:
        flush.start()
    for flush in flushes:
        flush.join(max(0.0, deadline - time.monotonic()))
