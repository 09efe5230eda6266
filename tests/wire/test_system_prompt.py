"""What is said to the model before the conversation."""

from kiro_mcp.chat import ChatRequest, ToolSpec
from kiro_mcp.wire.request import WRITE_IN_CHUNKS, compose_system
from kiro_mcp.wire.tools import sendable_tools

NO_TOOLS = sendable_tools([], [])


def test_nothing_to_say_is_no_prompt() -> None:
    request = ChatRequest(messages=(), conversation_id="", system="  ")
    assert compose_system(request, NO_TOOLS) == ""


def test_the_pieces_stand_in_one_order() -> None:
    """The tags that ask for thinking must come first; the rest never changes its place."""
    tool = ToolSpec(name="my.f", description="x" * 20, input_schema={})
    request = ChatRequest(
        messages=(),
        conversation_id="",
        system="Be terse.",
        writes_in_chunks=True,
        output_schema={"type": "array"},
    )
    tools = sendable_tools([tool], [], description_max_bytes=10)
    composed = compose_system(request, tools, tags="<tags>")
    assert composed.split("\n\n")[:4] == [
        "<tags>",
        "Be terse.",
        WRITE_IN_CHUNKS,
        f"Tool my_f:\n{'x' * 20}",
    ]
    assert composed.endswith('JSON Schema:\n{"type":"array"}')


def test_a_system_prompt_alone_is_sent_as_it_is() -> None:
    """A prompt that changes each time cannot be cached."""
    request = ChatRequest(messages=(), conversation_id="", system="Be terse.")
    assert compose_system(request, NO_TOOLS) == "Be terse."
