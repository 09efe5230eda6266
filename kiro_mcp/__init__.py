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

_ELSEWHERE = {
    "AccountBlocked": "errors",
    "AnswerBroken": "errors",
    "InvalidRequest": "errors",
    "KiroError": "errors",
    "ServiceUnavailable": "errors",
    "SignInRequired": "errors",
    "KiroClient": "client.client",
    "TokenSource": "client.client",
    "open_client": "server.engine",
}
"""The modules of the names that are not in `kiro_mcp.chat`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'chat')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
