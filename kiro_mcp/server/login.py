"""The tool `login`, and the sign-in during a call of `ask_claude`.

A sign-in page reaches the person in the first of these ways that the client supports::

    2026-07-28 with URL elicitation    an `InputRequiredResult`; the client calls again
    2025-11-25 with URL elicitation    a request to the client, while its call waits
    every other client                 link and code as text; a later `login` tells the state

Meanwhile a task polls the service in the background. Only the state of the login in this process
counts, so the calls carry no state.
"""

from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError

from kiro_mcp.auth.credentials import Credential, format_time
from kiro_mcp.auth.oidc import DeviceLogin
from kiro_mcp.auth.sign_in import SignInStatus, sign_in_status
from kiro_mcp.errors import InvalidRequest, KiroError, SignInRequired
from kiro_mcp.server.arguments import LoginArguments, read_arguments
from kiro_mcp.server.call import SIGN_IN_INPUT, Call, Result
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.owners import KEY_HEADER, OWN
from kiro_mcp.server.results import filled, success

if TYPE_CHECKING:
    from kiro_mcp.acp.client import AcpClient

WAIT_SECONDS: Final = 45.0
"""How long a call waits for a person: clients give up on a call after 60 seconds."""

LOGIN_COMMANDS: Final = "`kiro-cli login` (on a remote machine: `kiro-cli login --use-device-flow`)"

_CHANGE_THE_KEY = (
    f"This call runs on the API key in its header {KEY_HEADER}: change it where your client"
    " configures this server."
)
_SWITCHED_OFF = (
    "Over HTTP the tool `login` only tells who is signed in, because everybody's calls run on the"
    " same login. Run `kiro-mcp login` (or `logout`) where the server runs, or set"
    f" KIRO_MCP_HTTP_LOGIN=true there, or send an API key of your own in the header {KEY_HEADER}."
)


async def login(engine: Engine, arguments: dict[str, Any], call: Call) -> Result:
    """Tell who is signed in, or begin or end a login.

    Raises:
        KiroError: A login cannot be started, or the store cannot be written.
        InvalidRequest: The caller may not do that. The error tells what it can do instead.
    """
    given = read_arguments(LoginArguments, "login", arguments)
    result = await _act(engine, given, call)
    if not given.warnings or not isinstance(result, types.CallToolResult):
        return result
    facts: dict[str, Any] = {**result.structured_content}
    facts["warnings"] = [*facts.get("warnings", ()), *given.warnings]
    return _result(**facts)


async def _act(engine: Engine, given: LoginArguments, call: Call) -> Result:
    action = given.action
    if engine.program:
        return await _ask_program(engine.program, action)
    if instead := _instead_of_login(engine, call):
        if action in ("start", "logout"):
            raise InvalidRequest(f"`login` with action {action!r} is off here.", next_step=instead)
        return _status_result(await sign_in_status(engine.tokens), engine, instead)
    if action == "logout":
        await engine.sign_in.stop()
        store = engine.tokens.store
        was_in = await store.remove_login(store.hosts) if store else False
        found = await engine.tokens.resolution(is_forced=True)
        what = "Our own login was removed." if was_in else "There was no login of our own."
        left = f" {found.credential.source} is used now." if found.credential else ""
        return _result(
            "signed_out", next_step=f"{what}{left} Other programs' logins are untouched."
        )
    if call.page_reply:
        await take_reply(engine, call)
        return await _outcome(engine)
    if action == "status":
        engine.client.ask_again()  # A suspension may have been lifted.
    if action != "start":
        was_pending = engine.sign_in.pending is not None
        status = await sign_in_status(engine.tokens)
        if was_pending and not status.is_signed_in and engine.sign_in.state.state == "done":
            status = await sign_in_status(engine.tokens)  # It was confirmed meanwhile.
        # A login would not help against a wrong setting, folder or profile, or without a network.
        is_login_missing = (
            engine.tokens.store is not None
            and not status.is_signed_in
            and isinstance(status.problem, SignInRequired)
            and not status.resolution.problem
            and not _is_named(status.resolution.credential)
        )
        if action == "status" or not is_login_missing or engine.sign_in.pending:
            return _status_result(status, engine)
    pending = await engine.sign_in.start(
        given.method, start_url=given.start_url, region=given.region or engine.settings.region
    )
    if call.page_kind == "input_required":
        return _page(pending)
    if call.page_kind == "push":
        await _push_page(engine, pending, call)
        return await _outcome(engine)
    return _pending_result(pending)


async def _ask_program(program: "AcpClient", action: str) -> types.CallToolResult:
    """Say who is signed in to kiro-cli, which signs in and out by itself."""
    if action in ("start", "logout"):
        raise left_to_program(action)
    program.ask_again()
    try:
        await program.check_login()
    except SignInRequired as error:
        return _result("signed_out", source=await program.describe(), next_step=str(error))
    source = await program.describe()
    return _result("signed_in", source=source, next_step="Call `ask_claude`.")


def left_to_program(action: str) -> InvalidRequest:
    """Make the error of a login (`start`) or `logout` that kiro-cli does by itself."""
    command = "`kiro-cli logout`" if action == "logout" else LOGIN_COMMANDS
    return InvalidRequest(
        "With KIRO_MCP_ENGINE=kiro-cli, the program kiro-cli signs in and out by itself.",
        next_step=f"Run {command} in a terminal on the machine of this server.",
    )


async def take_reply(engine: Engine, call: Call) -> None:
    """If the person has answered the sign-in page, wait for the login or cancel it."""
    if not call.page_reply or _instead_of_login(engine, call):
        return
    if call.page_reply == "accept":
        await engine.sign_in.wait(WAIT_SECONDS)
    else:
        engine.sign_in.cancel()


async def offer_sign_in(
    engine: Engine, call: Call, error: SignInRequired
) -> types.InputRequiredResult | None:
    """Ask the person to sign in during a call that needs it.

    Returns:
        The page to show, after which the client calls again; None if the person has signed in.

    Raises:
        KiroError: The person cannot be asked, or has not signed in.
    """
    if engine.program:
        raise error
    if instead := _instead_of_login(engine, call):
        raise SignInRequired(
            error.message, next_step=instead, code=error.code, status=error.status
        ) from error
    resolution = await engine.tokens.resolution() if call.page_kind else None
    # A login would not be used, because a credential from the user's settings wins.
    if not resolution or resolution.problem or _is_named(resolution.credential):
        raise error
    if call.page_reply:
        raise _not_yet(engine, error) from None
    credential = resolution.credential
    if engine.sign_in.pending:
        pending = engine.sign_in.pending
    elif credential and credential.origin == "own" and credential.kind == "idc":
        pending = await engine.sign_in.start(
            "idc", start_url=credential.start_url, region=credential.region
        )
    else:
        pending = await engine.sign_in.start("builder_id")
    if call.page_kind == "input_required":
        return _page(pending)
    if not await _push_page(engine, pending, call):
        raise _not_yet(engine, SignInRequired("Nobody is signed in to Kiro."))
    return None


# --- the steps of a login ------------------------------------------------------------------


def _instead_of_login(engine: Engine, call: Call) -> str:
    """Return what a caller can do who may not start or end a login here; "" for one who may."""
    if engine.owner != OWN:
        return _CHANGE_THE_KEY
    if call.http_request is not None and not engine.settings.http_login:
        return _SWITCHED_OFF
    return ""


def _is_named(credential: Credential | None) -> bool:
    return bool(credential and credential.is_explicit and credential.origin != "own")


def _page(login: DeviceLogin) -> types.InputRequiredResult:
    params = types.ElicitRequestURLParams(message=_message(login), url=login.verification_url)
    return types.InputRequiredResult(
        input_requests={SIGN_IN_INPUT: types.ElicitRequest(params=params)}
    )


async def _push_page(engine: Engine, login: DeviceLogin, call: Call) -> bool:
    """Show the page through the client and wait; return whether the person has signed in."""
    name = login.user_code or "kiro-sign-in"
    try:
        with anyio.move_on_after(WAIT_SECONDS):
            answer = await call.session.elicit_url(
                _message(login), login.verification_url, name, call.request_id
            )
            if answer.action != "accept":
                engine.sign_in.cancel()
                return False
            state = await engine.sign_in.wait(WAIT_SECONDS)
            if state.state == "done":
                await call.session.send_elicit_complete(name)
    except MCPError:
        return False  # The client cannot show it. The text that follows has link and code.
    return engine.sign_in.state.state == "done"


def _not_yet(engine: Engine, error: SignInRequired) -> KiroError:
    if engine.sign_in.pending:
        return SignInRequired(
            "The sign-in has not been confirmed yet.",
            next_step=f"{_message(engine.sign_in.pending)} Then call again.",
        )
    return engine.sign_in.state.error or error


# --- results -------------------------------------------------------------------------------


async def _outcome(engine: Engine) -> types.CallToolResult:
    if engine.sign_in.pending:
        return _pending_result(engine.sign_in.pending)
    if error := engine.sign_in.state.error:
        return _result("failed", next_step=str(error))
    return _status_result(await sign_in_status(engine.tokens), engine)


def _message(login: DeviceLogin) -> str:
    code = f" The page must show the code {login.user_code}." if login.user_code else ""
    note = (
        " (This kind of sign-in uses an undocumented service of Kiro.)"
        if login.plan.is_social
        else ""
    )
    return f"Sign in to Kiro: open {login.verification_url} in a browser and allow it.{code}{note}"


def _pending_result(login: DeviceLogin) -> types.CallToolResult:
    return _result(
        "pending",
        method=login.plan.method,
        expires_at=format_time(login.expires_at),
        verification_url=login.verification_url,
        user_code=login.user_code,
        next_step=f"{_message(login)} Then call `login` again to see that it worked.",
    )


def _status_result(found: SignInStatus, engine: Engine, instead: str = "") -> types.CallToolResult:
    sign_in = engine.sign_in
    if sign_in.pending and not found.is_signed_in:
        return _pending_result(sign_in.pending)
    if not found.is_signed_in:
        state, why = "signed_out", str(found.problem)
        if instead and isinstance(found.problem, SignInRequired):
            why = f"{found.problem.message} {instead}"
        warnings = [str(sign_in.state.error)] if sign_in.state.error else []
    elif not found.is_usable and found.problem:
        state, why = "signed_in", found.problem.next_step
        warnings = [f"No call can be made yet: {found.problem}"]
    else:
        state, why = "signed_in", "Call `ask_claude`."
        warnings = [f"The credits are not known: {found.problem}"] if found.problem else []
    warnings += engine.client.notes
    credential, credits = found.resolution.credential, found.credits
    ends = credential.expires_at if credential else None
    quota = {
        "used": credits.used,
        "limit": credits.limit,
        "resets_at": format_time(credits.resets_at) if credits.resets_at else "",
        "plan": credits.plan,
    }
    return _result(
        state,
        method=credential.kind if credential else "",
        account=found.account,
        expires_at=format_time(ends) if ends else "",
        profile_arn=found.profile_arn,
        region=found.region,
        source=credential.source if credential else "",
        credits={} if credits.limit is None and not credits.plan else filled(quota),
        looked_at=[str(finding) for finding in found.resolution.findings],
        warnings=warnings,
        next_step=why,
    )


def _result(state: str, *, next_step: str, **facts: Any) -> types.CallToolResult:
    structured = {"state": state, **filled(facts), "next_step": next_step}
    lines = [f"{name}: {_in_words(value)}" for name, value in structured.items()]
    return success("\n".join(lines), structured)


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(cast("list[str]", value))
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return ", ".join(f"{name} {inner}" for name, inner in members.items())
    return str(value)
