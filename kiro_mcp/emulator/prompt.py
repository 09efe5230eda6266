"""What a script may know of the call that it answers: the body of a request in, a prompt out.

The script is picked by a line that starts with `/emulate`; it need not be the first line, since
clients fold system text in front of the prompt.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kiro_mcp.emulator.body import Conversation, items, members, text
from kiro_mcp.emulator.catalogue import Model
from kiro_mcp.emulator.context_use import (
    DEFAULT_WINDOW_TOKENS,
    context_window,
    tokens_of,
    tokens_sent,
)

ECHO_CHARACTERS: Final = 200
"""How much of the end of a prompt the canned answer repeats: enough to tell calls apart."""

_COMMAND: Final = re.compile(
    r"^/emulate[ \t]+(?P<name>\w[\w.-]*)[ \t]*(?P<argument>.*)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a script may know of the call that it answers."""

    name: str = "text"
    """The script asked for."""
    is_command: bool = False
    """Whether the prompt itself names it."""
    argument: str = ""
    """The rest of the line after its name."""
    said: str = ""
    """The last user text."""
    model_id: str = "auto"
    """The model that it is for, and that answers."""
    tools: Sequence[Mapping[str, object]] = ()
    """The tool specs declared with the call."""
    returned: str = ""
    """The text of the tool results that the call brings."""
    serial: int = 1
    """Counts the calls of one emulator."""
    times: int = 1
    """How often this text has come, this time included."""
    retry_after_seconds: int = 1
    tokens: int = 0
    """About how many tokens the whole request is."""
    window_tokens: int = DEFAULT_WINDOW_TOKENS
    """How many the model reads at most."""

    @classmethod
    def read(
        cls,
        body: object,
        *,
        serial: int,
        count: Callable[[str], int],
        retry_after_seconds: int,
        catalogue: Sequence[Model],
    ) -> "Prompt":
        """Find in the body of a request what its script may know; `count` counts its text."""
        conversation = Conversation(body)
        current = conversation.current
        said = current.content.strip()
        command = _COMMAND.search(said)
        results = current.tool_results
        contents = [part for result in results for part in items(result.get("content"))]
        model_id = text(current.message.get("modelId")) or "auto"
        return cls(
            name=command["name"] if command else "text",
            is_command=command is not None,
            argument=command["argument"].strip() if command else "",
            said=said,
            model_id=model_id,
            tools=conversation.tool_specs,
            returned=" ".join(text(members(part).get("text")) for part in contents).strip(),
            serial=serial,
            times=count(said),
            retry_after_seconds=retry_after_seconds,
            tokens=tokens_sent(conversation),
            window_tokens=context_window(catalogue, model_id),
        )

    def number(self, default: float, limit: float) -> float:
        """The argument as a number from 0 to `limit`; `default` where it is none."""
        try:
            return max(0.0, min(float(self.argument), limit))
        except ValueError:
            return default

    def context_percent(self, said: str) -> float:
        """How full the context window is after it and an answer, from 0 to 100."""
        return min(100.0, 100 * (self.tokens + tokens_of(said)) / self.window_tokens)

    @property
    def canned_text(self) -> str:
        """The answer to it."""
        answer = f"This is a canned answer of the emulator. You said: {_echo(self.said)}"
        return answer + f"\nYour tools said: {_echo(self.returned)}" if self.returned else answer


def _echo(said: str) -> str:
    return said if len(said) <= ECHO_CHARACTERS else f"… {said[-ECHO_CHARACTERS:]}"
