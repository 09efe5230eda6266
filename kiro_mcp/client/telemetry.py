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
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider

from kiro_mcp._version import __version__
from kiro_mcp.chat import ChatRequest, Fault, Reply
from kiro_mcp.client.classify import classify
from kiro_mcp.errors import KiroError

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

Attributes = dict[str, str | bool | int | float | list[str]]


class Inference:
    """One call to the model while it runs: collects what its span and its metrics will say."""

    def __init__(self, request: ChatRequest, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sent_at = 0.0
        self.read_reply: Callable[[], Reply | None] = lambda: None
        self.common: Attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "kiro",
            "gen_ai.request.model": request.model,
        }
        """The attributes of the span and of all metrics. Each has few values."""
        self.of_span: Attributes = {
            "gen_ai.request.stream": True,
            "gen_ai.conversation.id": request.conversation_id,
        }
        if request.max_tokens:
            self.of_span["gen_ai.request.max_tokens"] = request.max_tokens
        if request.output_schema is not None:
            self.of_span["gen_ai.output.type"] = "json"

    def sends_to(self, url: str) -> None:
        """Record the URL of an attempt. The last attempt of the call counts."""
        self._sent_at = self._clock()
        parts = urlsplit(url)
        self.common["server.address"] = parts.hostname or ""
        if port := parts.port or {"https": 443, "http": 80}.get(parts.scheme):
            self.common["server.port"] = port

    def begins(self, read_reply: Callable[[], Reply]) -> None:
        """Record that the first delta has arrived; `read_reply` returns what has arrived so far."""
        self.read_reply = read_reply
        self.of_span["gen_ai.response.time_to_first_chunk"] = self._clock() - self._sent_at


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
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider, SCHEMA_URL)
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
        call = Inference(request, self._clock)
        with self._tracer.start_as_current_span(
            f"chat {request.model}",
            kind=SpanKind.CLIENT,
            attributes={**call.common, **call.of_span},
            record_exception=False,  # The text of an error may quote the prompt.
            set_status_on_exception=False,
        ) as span:
            try:
                yield call
            except BaseException as error:
                self._record(span, call, error, self._clock() - started)
                raise
            self._record(span, call, None, self._clock() - started)

    def _record(
        self, span: Span, call: Inference, error: BaseException | None, seconds: float
    ) -> None:
        """Record a call that has ended: its span, its duration, its tokens and its credits."""
        reply = call.read_reply()
        if reply and reply.model_id:
            call.common["gen_ai.response.model"] = reply.model_id
        end = error or (reply.fault if reply else None)
        known = classify(end) if isinstance(end, Fault) else end
        ending: Attributes = {}
        if isinstance(known, KiroError):
            ending["error.type"] = known.code
        elif known is not None:
            is_fault = isinstance(known, Exception)
            ending["error.type"] = "internal_error" if is_fault else "cancelled"
        self._duration.record(seconds, {**call.common, **ending})
        if ending:
            span.set_status(StatusCode.ERROR)
        span.set_attributes({**call.common, **call.of_span, **ending})
        if reply is None:
            return
        usage = reply.usage
        facts: dict[str, list[str] | int | float | None] = {
            "gen_ai.response.finish_reasons": [reply.stop_reason],
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "kiro_mcp.usage.estimated": usage.is_estimated,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens or None,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens or None,
            "kiro_mcp.credits": usage.credits,
        }
        span.set_attributes({name: it for name, it in facts.items() if it is not None})
        if usage.credits:
            self._credits.add(usage.credits, call.common)
        if not usage.is_estimated:  # The convention forbids to count estimates.
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                self._tokens.record(count, {**call.common, "gen_ai.token.type": kind})


def flush_telemetry(seconds: float = FLUSH_SECONDS) -> None:
    """Have the process's OpenTelemetry SDK send what it has buffered; wait at most so long."""
    # Imported here to keep start-up light.
    from opentelemetry.metrics import get_meter_provider

    deadline = time.monotonic() + seconds
    # Only the SDK's providers buffer; the API's own have no such method.
    flushes = [
        Thread(target=flush, daemon=True)
        for provider in (trace.get_tracer_provider(), get_meter_provider())
        if (flush := getattr(provider, "force_flush", None))
    ]
    for flush in flushes:
        flush.start()
    for flush in flushes:
        flush.join(max(0.0, deadline - time.monotonic()))
