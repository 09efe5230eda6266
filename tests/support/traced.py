"""`python -m tests.support.traced FILE`: the program in a process that has set up OpenTelemetry.

Spans are held back for long, as exporters do to send many at once, and then go to the file; with
`-` for the file, to a collector that never answers.
"""

import sys
import threading
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)

from kiro_mcp.__main__ import main

HOLDING_MILLISECONDS = 600_000


class Deaf(SpanExporter):
    """Sends to a collector that never answers."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        threading.Event().wait()
        return SpanExportResult.FAILURE


def exporter(path: str) -> SpanExporter:
    if path == "-":
        return Deaf()
    return ConsoleSpanExporter(
        out=open(path, "w", encoding="utf-8"),
        formatter=lambda span: span.to_json(indent=None) + "\n",
    )


if __name__ == "__main__":
    provider = TracerProvider()
    processor = BatchSpanProcessor(
        exporter(sys.argv.pop()), schedule_delay_millis=HOLDING_MILLISECONDS
    )
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    main()
