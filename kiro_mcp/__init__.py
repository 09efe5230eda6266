"""Claude for any MCP client, through the user's own Kiro subscription.

The engine is also a library::

    async with kiro_mcp.open_client() as client:
        question = Message(role="user", parts=(TextPart(text="Say hello"),))
        async with client.stream(ChatRequest(messages=(question,))) as answer:
            async for delta in answer:
                ...
        reply = answer.reply

All names but the version are imported at their first use.
"""

from importlib import import_module

TYPE_CHECKING = False  # `typing`'s own would load it, first of all that a start loads.
if TYPE_CHECKING:
    from kiro_mcp.errors import (
        AccountBlocked,
        AnswerBroken,
        InvalidRequest,
        KiroError,
        ServiceUnavailable,
        SignInRequired,
    )
    from kiro_mcp.library import open_client
    from kiro_mcp.models import (
        AccessToken,
        ChatRequest,
        ImagePart,
        Message,
        Reply,
        TextDelta,
        TextPart,
        ThinkingDelta,
        ThinkingPart,
        ToolResult,
        ToolSpec,
        ToolUse,
        ToolUseDelta,
        Usage,
    )
    from kiro_mcp.transport.client import KiroClient, TokenSource

__version__ = "0.1.0"

__all__ = [
    "AccessToken",
    "AccountBlocked",
    "AnswerBroken",
    "ChatRequest",
    "ImagePart",
    "InvalidRequest",
    "KiroClient",
    "KiroError",
    "Message",
    "Reply",
    "ServiceUnavailable",
    "SignInRequired",
    "TextDelta",
    "TextPart",
    "ThinkingDelta",
    "ThinkingPart",
    "TokenSource",
    "ToolResult",
    "ToolSpec",
    "ToolUse",
    "ToolUseDelta",
    "Usage",
    "__version__",
    "open_client",
]

_HOMES = ("kiro_mcp.errors", "kiro_mcp.models", "kiro_mcp.transport.client", "kiro_mcp.library")


def __getattr__(name: str) -> object:
    if name in __all__:
        for home in _HOMES:
            if hasattr(module := import_module(home), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
