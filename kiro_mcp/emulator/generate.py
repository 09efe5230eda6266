"""The call that answers prompts: a request in, the script of its answer out."""

from typing import Final

from kiro_mcp.emulator.authorization import caller_of, profile_fault
from kiro_mcp.emulator.body import Conversation, members, text
from kiro_mcp.emulator.refusals import INPUT_TOO_LONG, MALFORMED, Refusal
from kiro_mcp.emulator.shapes import WireForm
from kiro_mcp.emulator.state import EmulatorState, SeenRequest
from kiro_mcp.emulator.steps import Script
from kiro_mcp.emulator.validation import refusals

_CONTENT_TYPES: Final = {
    WireForm.REST: "application/json",
    WireForm.RPC_GENERATE: "application/x-amz-json-1.0",
    WireForm.RPC_SEND: "application/x-amz-json-1.0",
}

_MAX_DETAIL_CHARACTERS: Final = 300
"""The longest `x-emulator-fault`; a header is no place for more."""


def generate(state: EmulatorState, request: SeenRequest, form: WireForm) -> Script:
    """The answer to a prompt, or the refusal of it."""
    refusal = _refusal_of(state, request, form)
    return (refusal,) if refusal else state.script_for(request.body)


def _refusal_of(state: EmulatorState, request: SeenRequest, form: WireForm) -> Refusal | None:
    caller = caller_of(state, request)
    if isinstance(caller, Refusal):
        return caller
    if not _is_in_form(request, form):
        return _explained(MALFORMED, f"the {form.value} form takes {_CONTENT_TYPES[form]}")
    if _size_without_images(request) > state.max_input_bytes:
        return INPUT_TOO_LONG
    faults = refusals(
        request.body,
        form=form,
        catalogue=state.catalogue,
        requires_profile_arn=caller.kind != "api_key",
    )
    if faults:
        return _explained(faults[0].refusal, str(faults[0]))
    return profile_fault(state, caller, text(members(request.body).get("profileArn")))


def _explained(refusal: Refusal, detail: str) -> Refusal:
    """The refusal with the reason for it in a header: the service's own text says too little."""
    printable = detail[:_MAX_DETAIL_CHARACTERS].encode("ascii", "backslashreplace").decode()
    return refusal.with_headers({"x-emulator-fault": "".join(printable.splitlines())})


def _is_in_form(request: SeenRequest, form: WireForm) -> bool:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_mixed = form is WireForm.REST and "x-amz-target" in request.headers
    return content_type == _CONTENT_TYPES[form] and not is_mixed


def _size_without_images(request: SeenRequest) -> int:
    images = [image for turn in Conversation(request.body).turns for image in turn.images]
    encoded = (text(members(image.get("source")).get("bytes")) for image in images)
    return request.size_bytes - sum(map(len, encoded))
