"""Claude for any MCP client, through the user's own Kiro subscription.

The engine is also a library::

    async with kiro_mcp.open_client() as client:
        question = Message(role="user", parts=(TextPart(text="Say hello"),))
        async with client.stream(ChatRequest(messages=(question,))) as answer:
            async for delta in answer:
                ...
        reply = answer.reply

Each name is imported at its first use; only the version is imported at once.
"""

from importlib import import_module

from kiro_mcp._version import __version__

TYPE_CHECKING = False  # `typing`'s own would load it, first of all that a start loads.
if TYPE_CHECKING:
    from kiro_mcp.chat import (
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
    from kiro_mcp.client.client import KiroClient, TokenSource
    from kiro_mcp.errors import (
        AccountBlocked,
        AnswerBroken,
        InvalidRequest,
        KiroError,
        ServiceUnavailable,
        SignInRequired,
    )
    from kiro_mcp.server.engine import open_client


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

_MODULES = {
    "kiro_mcp.errors": (
        "AccountBlocked",
        "AnswerBroken",
        "InvalidRequest",
        "KiroError",
        "ServiceUnavailable",
        "SignInRequired",
    ),
    "kiro_mcp.chat": (
        "AccessToken",
        "ChatRequest",
        "ImagePart",
        "Message",
        "Reply",
        "TextDelta",
        "TextPart",
        "ThinkingDelta",
        "ThinkingPart",
        "ToolResult",
        "ToolSpec",
        "ToolUse",
        "ToolUseDelta",
        "Usage",
    ),
    "kiro_mcp.client.client": ("KiroClient", "TokenSource"),
    "kiro_mcp.server.engine": ("open_client",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
