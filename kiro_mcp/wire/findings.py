"""What was amiss in a request: mended (`Repair`), or beyond mending (`Finding`).

Both are facts for whoever made the request: they are shown, never parsed.
"""

from dataclasses import dataclass

from kiro_mcp.errors import ErrorCode, InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Something in a request that was changed, so that the service takes it."""

    rule: str
    """The name of the step that changed it."""
    detail: str
    """What it did, and where, as one sentence."""


def counted(rule: str, count: int, what: str) -> list[Repair]:
    """Say that a step changed `count` things; [] where it changed none."""
    return [Repair(rule=rule, detail=f"{count} {what}.")] if count else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in a request that the service refuses."""

    rule: str
    """The name of the rule that it breaks."""
    place: str
    """Where it is: the caller's own (`messages[2].content[0]`) or a path in the payload."""
    cause: str
    """What is wrong there, in words that follow the place."""
    cure: str
    """What to do about it, as a sentence."""
    code: ErrorCode = "invalid_request"

    def __str__(self) -> str:
        return f"{self.place} {self.cause} ({self.rule})."

    def as_error(self) -> InvalidRequest:
        """Return the error that refuses the request for it."""
        return InvalidRequest(str(self), next_step=self.cure, code=self.code)
