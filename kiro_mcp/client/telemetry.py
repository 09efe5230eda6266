"""OpenTelemetry spans and metrics of the calls to the model.

The names follow the semantic conventions for generative AI, v1.41.0, their latest release:
https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai (the successor,
semantic-conventions-genai, renames the metrics and has no release yet).

Each call to the model has one span, which covers all its attempts. Its parent is the span that
the MCP SDK opens for the client's message, so a `traceparent` in a request's `_meta` becomes an
ancestor of it.

This module uses only the API of OpenTelemetry: unless the process sets up an SDK, nothing is
recorded and nothing is sent. Spans and metrics never hold a prompt, an answer, the text of an
error or a token.
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

if TYPE_CHECKING:  # Importing metrics takes 4 ms, so it waits until they are needed.
    from opentelemetry.metrics import MeterProvider

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

DURATION_BUCKETS: Final = tuple(0.01 * 2**power for power in range(14))
"""0.01 to 81.92 seconds, as the convention recommends."""

TOKEN_BUCKETS: Final = tuple(4**power for power in range(14))
"""1 to 67,108,864 tokens, as the convention recommends."""

FLUSH_SECONDS: Final = 0.25
"""How long the last flush may take. A server has half a second to end."""

_SCOPE: Final = "kiro_mcp"

Value = str | bool | int | float | list[str]
Attributes = dict[str, Value]


class Answer(Protocol):
    """An answer while it arrives."""

    @property
    def so_far(self) -> Reply:
        """The part of the answer that has arrived."""
        ...


class Inference:
    """One call to the model while it runs: collects what its span and its metrics will say."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sent_at = 0.0
        self.answer: Answer | None = None
        self.attributes: Attributes = {}

    def sends_to(self, url: str) -> None:
        """Record the URL of an attempt. The last attempt of the call counts."""
        self._sent_at = self._clock()
        self.attributes |= server_attributes(url)

    def begins(self, answer: Answer) -> None:
        """Record the answer when its first delta arrives."""
        self.answer = answer
        self.attributes["gen_ai.response.time_to_first_chunk"] = self._clock() - self._sent_at


class Telemetry:
    """Makes the spans and metrics of calls to the model.

    Args:
        tracer_provider: Receives the spans; None for the process's global provider.
        meter_provider: Receives the metrics; None for the process's global provider.
        clock: Returns seconds from any fixed start.
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
        """Open the span of one call, from its first attempt to the end of its answer."""
        started = self._clock()
        with self._tracer.start_as_current_span(
            f"chat {request.model}",
            kind=SpanKind.CLIENT,
            attributes=request_attributes(request),
            record_exception=False,  # The text of an error may quote the prompt.
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
                self._record(request, call, reply, code, self._clock() - started)

    def _record(
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


# --- attributes ---------------------------------------------------------------------------

_OPERATION: Final[Mapping[str, str]] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "kiro",
}


def request_attributes(request: ChatRequest) -> Attributes:
    """Return the attributes of a span that are known before anything is sent."""
    attributes: Attributes = {
        **_OPERATION,
        "gen_ai.request.model": request.model,
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": request.conversation_id,
    }
    if request.max_tokens:
        attributes["gen_ai.request.max_tokens"] = request.max_tokens
    if request.output_schema is not None:
        attributes["gen_ai.output.type"] = "json"
    return attributes


def server_attributes(url: str) -> Attributes:
    """Return the attributes for the host and port of a URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def reply_attributes(reply: Reply | None) -> Attributes:
    """Return the attributes of an answer, whole or partial, without its content."""
    if reply is None:
        return {}
    usage = reply.usage
    attributes: Attributes = {
        "gen_ai.response.finish_reasons": [reply.stop_reason],
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "kiro_mcp.usage.estimated": usage.is_estimated,
    }
    if reply.model_id:
        attributes["gen_ai.response.model"] = reply.model_id
    if usage.cache_read_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        attributes["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write_tokens
    if usage.credits is not None:
        attributes["kiro_mcp.credits"] = usage.credits
    return attributes


def metric_attributes(
    request: ChatRequest, server: Mapping[str, Value], reply: Reply | None
) -> Attributes:
    """Return the attributes of a call's metrics. Each has few values, unlike those of a span."""
    common: Attributes = {**_OPERATION, "gen_ai.request.model": request.model}
    common |= {name: server[name] for name in ("server.address", "server.port") if name in server}
    if reply and reply.model_id:
        common["gen_ai.response.model"] = reply.model_id
    return common


def exact_tokens(usage: Usage) -> dict[str, int]:
    """Return the tokens to count, by type; {} for estimates, which the convention forbids."""
    if usage.is_estimated:
        return {}
    return {"input": usage.input_tokens, "output": usage.output_tokens}


def error_type(error: BaseException | None, reply: Reply | None) -> ErrorCode | None:
    """Return the code of the error that ended a call or cut its answer off; None for none."""
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


# --- flushing before the process ends -----------------------------------------------------


@runtime_checkable
class _Flushable(Protocol):
    """A provider of the SDK. The API's own providers buffer nothing."""

    def force_flush(self) -> bool: ...


def flush_telemetry(seconds: float = FLUSH_SECONDS) -> None:
    """Have the process's OpenTelemetry SDK send what it has buffered; wait at most so long."""
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
