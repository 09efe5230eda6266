"""A deadline for work that must take linear time: quadratic work takes far longer than this."""

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def with_deadline(work: Callable[[], Result], seconds: float = 30) -> Result:
    """Return what the work returns; fail if it takes many times as long as it should."""
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"not done after {seconds} seconds"
    return results[0]
