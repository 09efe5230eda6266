"""The log lines of a call, whatever else goes on meanwhile: told apart by a context variable.

Tasks and worker threads take it over from whoever starts them.
"""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Sink = Callable[[str], None]
"""What takes a line."""

_PACKAGE: Final = "kiro_mcp"
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_sink: ContextVar[Sink | None] = ContextVar("kiro_mcp_captured_log", default=None)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if (sink := _sink.get()) is not None:
            sink(self.format(record))


_handler: Final = _Handler(logging.DEBUG)
_handler.setFormatter(logging.Formatter(_FORMAT))


@contextmanager
def logging_to(sink: Sink) -> Generator[None]:
    """Hand every line that this package logs in the block, and what it starts, to a sink."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def watch_log() -> None:
    """Have the package log at DEBUG, for sinks. Other handlers keep to levels of their own."""
    logger = logging.getLogger(_PACKAGE)
    logger.addHandler(_handler)  # Once, however often it is added.
    logger.setLevel(logging.DEBUG)
