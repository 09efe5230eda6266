"""One call to be judged: its body, and the terms that hold for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kiro_mcp.emulator.body import Conversation, members, text
from kiro_mcp.emulator.catalogue import Model
from kiro_mcp.emulator.shapes import WireForm

ORIGINS: Final = frozenset(
    [
        "AI_EDITOR",
        "CHATBOT",
        "CLI",
        "CONSOLE",
        "DOCUMENTATION",
        "GITLAB",
        "IDE",
        "INLINE_CHAT",
        "KIRO_CLI",
        "MARKETING",
        "MD",
        "MD_CE",
        "MD_IDE",
        "MOBILE",
        "OPENSEARCH_DASHBOARD",
        "Q_DEV_BEXT",
        "SAGE_MAKER",
        "SERVICE_INTERNAL",
        "SM_AI_STUDIO_IDE",
        "UNIFIED_SEARCH",
        "UNKNOWN",
    ]
)
"""Every origin that the service knows; a message without one comes from `SERVICE_INTERNAL`."""

ORIGINS_TAKEN: Final[Mapping[WireForm, frozenset[str]]] = {
    WireForm.REST: frozenset({"KIRO_CLI", "AI_EDITOR"}),
    WireForm.RPC_GENERATE: frozenset({"KIRO_CLI", "AI_EDITOR", "CLI"}),
    WireForm.RPC_SEND: frozenset({"CLI"}),
}
"""The origins that each form of the call was observed to work with (2026)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request for an answer, as its rules see it."""

    body: object
    form: WireForm
    catalogue: Sequence[Model]
    requires_profile_arn: bool

    @property
    def conversation(self) -> Conversation:
        """Its messages."""
        return Conversation(self.body)

    @property
    def members(self) -> Mapping[str, object]:
        """What it carries beside them."""
        return members(self.body)

    @property
    def model(self) -> Model | None:
        """The catalogue's entry of the model it names; of the default one if it names none."""
        named = text(self.conversation.current.message.get("modelId")) or "auto"
        return next((model for model in self.catalogue if model["modelId"] == named), None)
