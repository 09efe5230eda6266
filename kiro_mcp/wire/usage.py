"""What the service says of an answer's cost, and our estimate where it says nothing.

The service charges credits, and says how many; it also says how full the context window is.
Its model has exact counts of tokens too, but no answer observed so far carried any, so a
count of zero is no count.
"""

from typing import Final

from kiro_mcp.chat import Usage
from kiro_mcp.wire.event_types import ContextUsage, Metering, TokenCounts

BYTES_PER_TOKEN: Final = 4
"""Of UTF-8: right for English, and, at three bytes a character, for Chinese and Japanese."""


class UsageMeter:
    """Adds up one answer's figures.

    Args:
        prompt_characters: The size of the prompt, for the estimate.
        context_window_tokens: The size of the model's context window, 0 where it is not
            known. With it, the estimate follows the service's percentage.
    """

    def __init__(self, prompt_characters: int, context_window_tokens: int) -> None:
        self.context_percent: float | None = None
        """How full the context window is, as last said. It counts the prompt and the answer."""
        self.credits: float | None = None
        """What the service has charged so far; None where it has not said."""
        self._prompt_characters = prompt_characters
        self._context_window_tokens = context_window_tokens
        self._counts = TokenCounts()

    def add(self, event: Metering | ContextUsage | TokenCounts) -> None:
        """Take a figure. Credits add up; of the others the last one that says anything counts."""
        match event:
            case Metering(credits=None) | ContextUsage(percent=None):
                pass
            case Metering():
                self.credits = (self.credits or 0.0) + (event.credits or 0.0)
            case ContextUsage():
                self.context_percent = event.percent
            case _:
                self._counts = event if event != TokenCounts() else self._counts

    def usage(self, output_bytes: int) -> Usage:
        """Return the figures.

        Args:
            output_bytes: The size in UTF-8 of all that the model gave, for the estimate.
        """
        counts = self._counts
        input_tokens = counts.uncached_input + counts.cache_read + counts.cache_write
        output_tokens = counts.output or -(-output_bytes // BYTES_PER_TOKEN)
        return Usage(
            input_tokens=input_tokens or self._estimate_input(output_tokens),
            output_tokens=output_tokens,
            cache_read_tokens=counts.cache_read,
            cache_write_tokens=counts.cache_write,
            is_estimated=not (input_tokens and (counts.output or not output_bytes)),
            context_percent=self.context_percent,
            credits=self.credits,
        )

    def _estimate_input(self, output_tokens: int) -> int:
        # The percentage covers the answer too. What it is a percentage of seldom is the
        # window that the service advertises, which is why this stays an estimate.
        window_tokens = (self.context_percent or 0) * self._context_window_tokens / 100
        by_percent = round(window_tokens) - output_tokens
        return by_percent if by_percent > 0 else -(-self._prompt_characters // BYTES_PER_TOKEN)
