"""Tools, and a prompt, that ask back as MCP 2026-07-28 does it: the result is the question.

Each is a list of rounds, each round a set of questions by name; once all of a round are
answered the next comes, and after the last one the result. The state that goes through the
client is the number of the round; the SDK seals it.
"""

from collections.abc import Mapping

import mcp_types as types
from mcp_types import CreateMessageRequest, ElicitRequest, ListRootsRequest

from tests.conformance.tools import Context, Result, Tool, done, form, question, text

Question = CreateMessageRequest | ListRootsRequest | ElicitRequest
Round = Mapping[str, Question]


def elicit(message: str, field: str, kind: str = "string") -> ElicitRequest:
    schema = form(**{field: {"type": kind}})
    return ElicitRequest(
        params=types.ElicitRequestFormParams(message=message, requested_schema=schema)
    )


def sample(said: str) -> CreateMessageRequest:
    return CreateMessageRequest(params=question(said))


def next_questions(
    rounds: list[Round],
    params: types.CallToolRequestParams | types.GetPromptRequestParams,
) -> types.InputRequiredResult | None:
    """The questions that are open; None once all are answered."""
    number = int(params.request_state or 0)
    answers = params.input_responses or {}
    if all(name in answers for name in rounds[number]):
        number += 1
    if number == len(rounds):
        return None
    return types.InputRequiredResult(input_requests=dict(rounds[number]), request_state=str(number))


def asking(*rounds: Round) -> Tool:
    """A tool that asks, round by round, and then answers."""

    async def tool(context: Context, params: types.CallToolRequestParams) -> Result:
        open_questions = next_questions(list(rounds), params)
        return open_questions or done(text(f"state-ok: {params.input_responses}"))

    return tool


async def asking_what_the_client_can(
    context: Context, params: types.CallToolRequestParams
) -> Result:
    can = context.session.client_capabilities or types.ClientCapabilities()
    questions: dict[str, Question] = {}
    if can.sampling is not None:
        questions["capital"] = sample("What is the capital of France?")
    if can.elicitation is not None:
        questions["name"] = elicit("What is your name?", "name")
    return next_questions([questions], params) or done(text("Nothing to ask."))


USER_NAME: Round = {"user_name": elicit("What is your name?", "name")}
CONFIRM: Round = {"confirm": elicit("Please confirm", "ok", "boolean")}
ROOTS: Round = {"client_roots": ListRootsRequest()}
PROMPT: Round = {"user_context": elicit("What context should the prompt use?", "context")}

TOOLS: dict[str, Tool] = {
    "test_input_required_result_elicitation": asking(USER_NAME),
    "test_input_required_result_sampling": asking(
        {"capital_question": sample("What is the capital of France?")}
    ),
    "test_input_required_result_list_roots": asking(ROOTS),
    "test_input_required_result_request_state": asking(CONFIRM),
    "test_input_required_result_multiple_inputs": asking(
        {**USER_NAME, "greeting": sample("Generate a greeting"), **ROOTS}
    ),
    "test_input_required_result_multi_round": asking(
        {"step1": elicit("Step 1: What is your name?", "name")},
        {"step2": elicit("Step 2: What is your favorite color?", "color")},
    ),
    "test_input_required_result_tampered_state": asking(CONFIRM),
    "test_input_required_result_capabilities": asking_what_the_client_can,
    "test_streaming_elicitation": asking(CONFIRM),
}
