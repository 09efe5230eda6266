"""The tools that the conformance suite calls by name, apart from those that ask back."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

from kiro_mcp.server.owners import Engines
from tests.conformance.media import PNG, WAV

Context = ServerRequestContext[Engines]
Result = types.CallToolResult | types.InputRequiredResult
Tool = Callable[[Context, types.CallToolRequestParams], Awaitable[Result]]

_STEP_SECONDS = 0.05
"""The suite asks for this pause between two notifications."""


def text(said: str) -> types.TextContent:
    return types.TextContent(type="text", text=said)


def image() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, mime_type: str, content: str) -> types.EmbeddedResource:
    resource = types.TextResourceContents(uri=uri, mime_type=mime_type, text=content)
    return types.EmbeddedResource(type="resource", resource=resource)


def done(*blocks: types.ContentBlock, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=list(blocks), is_error=is_error)


def answering(*blocks: types.ContentBlock, is_error: bool = False) -> Tool:
    """A tool that always answers the same."""

    async def tool(context: Context, params: types.CallToolRequestParams) -> Result:
        return done(*blocks, is_error=is_error)

    return tool


async def with_logging(context: Context, params: types.CallToolRequestParams) -> Result:
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await _log(context, said)
        await anyio.sleep(_STEP_SECONDS)
    return done(text("Logged three times."))


async def with_progress(context: Context, params: types.CallToolRequestParams) -> Result:
    for percent in (0, 50, 100):
        await context.session.report_progress(percent, 100)
        await anyio.sleep(_STEP_SECONDS)
    return done(text("Reported three times."))


async def sampling(context: Context, params: types.CallToolRequestParams) -> Result:
    asked = types.CreateMessageRequest(params=question((params.arguments or {})["prompt"]))
    answer = await context.session.send_request(
        asked, types.CreateMessageResult, metadata=_on_this_stream(context)
    )
    return done(text(f"LLM response: {answer.content}"))


async def needs_sampling(context: Context, params: types.CallToolRequestParams) -> Result:
    needed = types.ClientCapabilities(sampling=types.SamplingCapability())
    if context.session.check_client_capability(needed):
        return done(text("The client can sample."))
    raise MCPError(
        code=types.MISSING_REQUIRED_CLIENT_CAPABILITY,
        message="This tool needs a client that can sample.",
        data={"requiredCapabilities": {"sampling": {}}},
    )


def eliciting(message: str, schema: dict[str, Any]) -> Tool:
    """A tool that asks the user while it runs, as clients until 2025-11-25 know it."""

    async def tool(context: Context, params: types.CallToolRequestParams) -> Result:
        said = (params.arguments or {}).get("message", message)
        answer = await context.session.elicit_form(said, schema, context.request_id)
        return done(text(f"User response: action={answer.action}, content={answer.content}"))

    return tool


def question(said: str, max_tokens: int = 100) -> types.CreateMessageRequestParams:
    asked = types.SamplingMessage(role="user", content=text(said))
    return types.CreateMessageRequestParams(messages=[asked], max_tokens=max_tokens)


def form(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


async def _log(context: Context, said: str) -> None:
    is_modern = context.protocol_version >= "2026-07-28"
    if is_modern and types.LOG_LEVEL_META_KEY not in (context.meta or {}):
        return  # That revision sends a log only to those who ask for it.
    params = types.LoggingMessageNotificationParams(level="info", data=said)
    await context.session.send_notification(
        types.LoggingMessageNotification(params=params), context.request_id
    )


def _on_this_stream(context: Context) -> ServerMessageMetadata:
    return ServerMessageMetadata(related_request_id=context.request_id)


def _choices(*values: str) -> list[dict[str, str]]:
    return [{"const": value, "title": f"Choice {value}"} for value in values]


_OPTIONS = ["option1", "option2", "option3"]
_VALUES = _choices("value1", "value2", "value3")

_DEFAULTS = form(
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)

_ENUMS = form(
    untitledSingle={"type": "string", "enum": _OPTIONS},
    titledSingle={"type": "string", "oneOf": _VALUES},
    legacyEnum={
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    untitledMulti={"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
    titledMulti={"type": "array", "items": {"anyOf": _VALUES}},
)

SCHEMAS: dict[str, dict[str, Any]] = {
    "json_schema_2020_12_tool": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"$anchor": "addressDef", "type": "object"}},
        "properties": {
            "address": {"$ref": "#/$defs/address"},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"required": ["address"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
    "test_x_mcp_header": form(region={"type": "string", "x-mcp-header": "Region"}),
}
"""The input schemas that matter to the suite; other tools take any object."""

TOOLS: dict[str, Tool] = {
    "json_schema_2020_12_tool": answering(text("Only its schema matters.")),
    "test_x_mcp_header": answering(text("Only its header matters.")),
    "test_simple_text": answering(text("This is a simple text response for testing.")),
    "test_image_content": answering(image()),
    "test_audio_content": answering(
        types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")
    ),
    "test_embedded_resource": answering(
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource.")
    ),
    "test_multiple_content_types": answering(
        text("Multiple content types test:"),
        image(),
        embedded("test://mixed-content-resource", "application/json", '{"test":"data"}'),
    ),
    "test_error_handling": answering(text("This tool always fails."), is_error=True),
    "test_tool_with_logging": with_logging,
    "test_logging_tool": with_logging,
    "test_tool_with_progress": with_progress,
    "test_sampling": sampling,
    "test_missing_capability": needs_sampling,
    "test_elicitation": eliciting(
        "Who are you?", form(username={"type": "string"}, email={"type": "string"})
    ),
    "test_elicitation_sep1034_defaults": eliciting("Please check these.", _DEFAULTS),
    "test_elicitation_sep1330_enums": eliciting("Please choose.", _ENUMS),
}
