"""The resources and prompts that the conformance suite reads by name."""

import json
import re
from collections.abc import Callable, Mapping

import mcp_types as types
from mcp.shared.exceptions import MCPError

from tests.conformance.media import PNG
from tests.conformance.rounds import PROMPT, next_questions
from tests.conformance.tools import Context, embedded, image, text

_TEMPLATE = re.compile(r"test://template/([^/]+)/data")

_LISTED = {
    "test://static-text": "text/plain",
    "test://static-binary": "image/png",
    "test://watched-resource": "text/plain",
}


async def list_resources(
    context: Context, params: types.PaginatedRequestParams
) -> types.ListResourcesResult:
    return types.ListResourcesResult(
        resources=[
            types.Resource(uri=uri, name=uri, description="For the suite.", mime_type=mime_type)
            for uri, mime_type in _LISTED.items()
        ]
    )


async def list_templates(
    context: Context, params: types.PaginatedRequestParams
) -> types.ListResourceTemplatesResult:
    template = types.ResourceTemplate(
        uri_template="test://template/{id}/data", name="template", description="For the suite."
    )
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(
    context: Context, params: types.ReadResourceRequestParams
) -> types.ReadResourceResult:
    return types.ReadResourceResult(contents=[_contents(str(params.uri))])


def _contents(uri: str) -> types.TextResourceContents | types.BlobResourceContents:
    filled = _TEMPLATE.fullmatch(uri)
    if filled:
        data = json.dumps({"id": filled[1], "templateTest": True, "data": f"For ID {filled[1]}"})
        return types.TextResourceContents(uri=uri, mime_type="application/json", text=data)
    if uri not in _LISTED:
        raise MCPError(code=types.INVALID_PARAMS, message="Resource not found", data={"uri": uri})
    if _LISTED[uri] == "image/png":
        return types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
    return types.TextResourceContents(uri=uri, mime_type="text/plain", text="Static text.")


async def subscribe(context: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
    return types.EmptyResult()


async def unsubscribe(
    context: Context, params: types.UnsubscribeRequestParams
) -> types.EmptyResult:
    return types.EmptyResult()


_Given = Mapping[str, str]

_PROMPTS: dict[str, tuple[list[str], Callable[[_Given], list[types.ContentBlock]]]] = {
    "test_simple_prompt": ([], lambda given: [text("This is a simple prompt for testing.")]),
    "test_prompt_with_arguments": (
        ["arg1", "arg2"],
        lambda given: [text(f"arg1={given['arg1']!r}, arg2={given['arg2']!r}")],
    ),
    "test_prompt_with_embedded_resource": (
        ["resourceUri"],
        lambda given: [embedded(given["resourceUri"], "text/plain", "Embedded."), text("Read it.")],
    ),
    "test_prompt_with_image": ([], lambda given: [image(), text("Look at it.")]),
    "test_input_required_result_prompt": ([], lambda given: [text("Use the context.")]),
}


async def list_prompts(
    context: Context, params: types.PaginatedRequestParams
) -> types.ListPromptsResult:
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=name,
                description="For the suite.",
                arguments=[types.PromptArgument(name=one, required=True) for one in arguments],
            )
            for name, (arguments, _) in _PROMPTS.items()
        ]
    )


async def get_prompt(
    context: Context, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    if params.name == "test_input_required_result_prompt":
        open_questions = next_questions([PROMPT], params)
        if open_questions:
            return open_questions
    if params.name not in _PROMPTS:
        raise MCPError(code=types.INVALID_PARAMS, message="Prompt not found")
    _, blocks = _PROMPTS[params.name]
    return types.GetPromptResult(
        messages=[
            types.PromptMessage(role="user", content=block)
            for block in blocks(params.arguments or {})
        ]
    )


async def complete(context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    started = params.argument.value
    values = [word for word in ("paris", "park", "party", "test") if word.startswith(started)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values)))
