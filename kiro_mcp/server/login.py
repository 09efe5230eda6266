"""The tool `login`, and the way from "signed out" to an answer where the user can be asked.

A sign-in page reaches the person by the first way that the client has::

    2026-07-28 with URL elicitation    an `InputRequiredResult`; the client calls again
    2025-11-25 with URL elicitation    a request to the client, while its call waits
    every other client                 link and code as text; `login` again says how it stands

Meanwhile the login is polled for in the background. A retried call proves nothing by itself: what
counts is how the login stands here, so no state travels with it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError

from kiro_mcp.auth.credentials import Credential
from kiro_mcp.auth.device_flow import DeviceLogin, Method
from kiro_mcp.auth.documents import format_time
from kiro_mcp.auth.sign_in import SignInStatus, sign_in_status
from kiro_mcp.errors import InvalidRequest, KiroError, SignInRequired
from kiro_mcp.server.asker import SIGN_IN_INPUT, Asker, Result
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.owners import KEY_HEADER, OWN
from kiro_mcp.server.results import filled, success

WAIT_SECONDS = 45.0
"""How long a call waits for a person: clients give up on a call after 60 seconds."""

Action: TypeAlias = Literal["", "status", "start", "logout"]

_CHANGE_THE_KEY = (
    f"This call runs on the API key in its header {KEY_HEADER}: change it where your client"
    " configures this server."
)
_SWITCHED_OFF = (
    "Over HTTP the tool `login` only tells who is signed in, because everybody's calls run on the"
    " same login. Run `kiro-mcp login` (or `logout`) where the server runs, or set"
    f" KIRO_MCP_HTTP_LOGIN=true there, or send an API key of your own in the header {KEY_HEADER}."
)

_CALL_AGAIN = "Then call `login` again to see that it worked."


def instead_of_login(engine: Engine, *, is_over_http: bool) -> str:
    """Return what a caller can do that may not start or end a login here; "" if it may."""
    if engine.owner != OWN:
        return _CHANGE_THE_KEY
    if is_over_http and not engine.settings.http_login:
        return _SWITCHED_OFF
    return ""


async def run(
    engine: Engine,
    *,
    action: Action,
    method: Method,
    start_url: str,
    region: str,
    asker: Asker,
    instead: str = "",
) -> Result:
    """Do what a call of `login` asks for.

    Raises:
        KiroError: A login cannot be started, or the store cannot be written.
        InvalidRequest: The caller may not do that, but can do something `instead`.
    """
    if instead and action in ("start", "logout"):
        raise InvalidRequest(f"`login` with action {action!r} is off here.", next_step=instead)
    if instead:
        return _told(await sign_in_status(engine.tokens), engine, instead)
    if action == "logout":
        return await _log_out(engine)
    if asker.reply:
        return await _after_reply(engine, asker)
    if action == "status":
        return await status(engine)
    if action != "start":
        found = await sign_in_status(engine.tokens)
        if _is_pending(engine) or not _calls_for_login(found, engine):
            return _told(found, engine)
    login = await engine.sign_in.start(method, start_url=start_url, region=region)
    return await _shown(engine, login, asker)


def with_warnings(result: Result, warnings: Sequence[str]) -> Result:
    """Add warnings to what a call of `login` gives, if it is a result."""
    structured = getattr(result, "structured_content", None)
    if not warnings or structured is None:
        return result
    facts: dict[str, Any] = {**structured}
    facts["warnings"] = [*facts.get("warnings", ()), *warnings]
    return _state(**facts)


async def status(engine: Engine) -> types.CallToolResult:
    """Say who is signed in, or that a login is under way.

    Whoever asks may have had a suspension lifted: the next call tries again.
    """
    engine.client.ask_again()
    return _told(await sign_in_status(engine.tokens), engine)


async def signed_in_first(
    call: Callable[[], Awaitable[types.CallToolResult]],
    engine: Engine,
    asker: Asker,
    instead: str = "",
) -> Result:
    """Make a call. If it needs a login, have the person sign in and make it again.

    Args:
        call: Makes the call.
        engine: The account.
        asker: How the person can be asked.
        instead: What the caller can do if it may not start a login.

    Raises:
        KiroError: The call failed, or the person cannot be asked, or did not sign in.
    """
    if instead:
        try:
            return await call()
        except SignInRequired as error:
            raise SignInRequired(
                error.message, next_step=instead, code=error.code, status=error.status
            ) from error
    if asker.reply == "accept":
        await engine.sign_in.wait(WAIT_SECONDS)
    elif asker.reply:
        engine.sign_in.cancel()
    try:
        return await call()
    except SignInRequired as error:
        if asker.way == "none" or not await _would_help(engine):
            raise
        if asker.reply:
            raise _not_yet(engine, error) from None
    login = await _usual_login(engine)
    if asker.way == "input_required":
        return _page(login)
    if await _pushed(engine, login, asker):
        return await call()
    raise _not_yet(engine, SignInRequired("Nobody is signed in to Kiro."))


# --- the steps of a login ------------------------------------------------------------------


async def _shown(engine: Engine, login: DeviceLogin, asker: Asker) -> Result:
    if asker.way == "input_required":
        return _page(login)
    if asker.way == "push":
        await _pushed(engine, login, asker)
        return await _outcome(engine)
    return _pending(login)


async def _after_reply(engine: Engine, asker: Asker) -> Result:
    if asker.reply == "accept":
        await engine.sign_in.wait(WAIT_SECONDS)
    else:
        engine.sign_in.cancel()
    return await _outcome(engine)


async def _outcome(engine: Engine) -> types.CallToolResult:
    state = engine.sign_in.state
    if state.state == "pending" and state.login:
        return _pending(state.login)
    if state.state == "failed" and state.error:
        return _state("failed", next_step=str(state.error))
    return _told(await sign_in_status(engine.tokens), engine)


def _page(login: DeviceLogin) -> types.InputRequiredResult:
    params = types.ElicitRequestURLParams(message=_message(login), url=login.verification_url)
    return types.InputRequiredResult(
        input_requests={SIGN_IN_INPUT: types.ElicitRequest(params=params)}
    )


async def _pushed(engine: Engine, login: DeviceLogin, asker: Asker) -> bool:
    """Show the page through the client and wait; say whether the person has signed in."""
    assert asker.session
    name = login.user_code or "kiro-sign-in"
    try:
        with anyio.move_on_after(WAIT_SECONDS):
            answer = await asker.session.elicit_url(
                _message(login), login.verification_url, name, asker.request_id
            )
            if answer.action != "accept":
                engine.sign_in.cancel()
                return False
            state = await engine.sign_in.wait(WAIT_SECONDS)
            if state.state == "done":
                await asker.session.send_elicit_complete(name)
    except MCPError:
        return False  # The client cannot after all; the text that follows has link and code.
    return engine.sign_in.state.state == "done"


async def _usual_login(engine: Engine) -> DeviceLogin:
    """Start the login that nobody said more about: the one under way, or the last one again."""
    state = engine.sign_in.state
    if state.state == "pending" and state.login:
        return state.login
    credential = (await engine.tokens.resolution()).credential
    if credential and credential.origin == "own" and credential.kind == "idc":
        return await engine.sign_in.start(
            "idc", start_url=credential.start_url, region=credential.region
        )
    return await engine.sign_in.start("builder_id")


async def _would_help(engine: Engine) -> bool:
    """Whether a login made here would be used at all."""
    resolution = await engine.tokens.resolution()
    return resolution.problem is None and not _is_named(resolution.credential)


def _is_named(credential: Credential | None) -> bool:
    return bool(credential and credential.is_explicit and credential.origin != "own")


def _is_pending(engine: Engine) -> bool:
    return engine.sign_in.state.state == "pending"


def _calls_for_login(found: SignInStatus, engine: Engine) -> bool:
    """Whether a login is what is missing, and not a setting, a folder, the network or a profile."""
    if engine.tokens.store is None:
        return False
    is_out = not found.is_signed_in and isinstance(found.problem, SignInRequired)
    return is_out and not found.is_misconfigured and not _is_named(found.credential)


def _not_yet(engine: Engine, error: SignInRequired) -> KiroError:
    state = engine.sign_in.state
    if state.state == "failed" and state.error:
        return state.error
    if state.state != "pending" or state.login is None:
        return error
    return SignInRequired(
        "The sign-in has not been confirmed yet.",
        next_step=f"{_message(state.login)} Then call again.",
    )


async def _log_out(engine: Engine) -> types.CallToolResult:
    await engine.sign_in.stop()
    store = engine.tokens.store
    was_in = await store.remove_login(store.hosts) if store else False
    found = await engine.tokens.resolution(is_forced=True)
    what = "Our own login was removed." if was_in else "There was no login of our own."
    left = f" {found.credential.source} is used now." if found.credential else ""
    return _state("signed_out", next_step=f"{what}{left} Other programs' logins are untouched.")


# --- results -------------------------------------------------------------------------------


def _message(login: DeviceLogin) -> str:
    code = f" The page must show the code {login.user_code}." if login.user_code else ""
    note = (
        " (This kind of sign-in uses an undocumented service of Kiro.)"
        if login.plan.is_social
        else ""
    )
    return f"Sign in to Kiro: open {login.verification_url} in a browser and allow it.{code}{note}"


def _pending(login: DeviceLogin) -> types.CallToolResult:
    return _state(
        "pending",
        method=login.plan.method,
        expires_at=format_time(login.expires_at),
        verification_url=login.verification_url,
        user_code=login.user_code,
        next_step=f"{_message(login)} {_CALL_AGAIN}",
    )


def _told(found: SignInStatus, engine: Engine, instead: str = "") -> types.CallToolResult:
    pending = engine.sign_in.state.login if _is_pending(engine) else None
    if pending and not found.is_signed_in:
        return _pending(pending)
    if not found.is_signed_in:
        state, why = "signed_out", str(found.problem)
        if instead and isinstance(found.problem, SignInRequired):
            why = f"{found.problem.message} {instead}"
        failure = engine.sign_in.state.error
        warnings = [str(failure)] if failure else []
    elif not found.is_usable and found.problem:
        state, why = "signed_in", found.problem.next_step
        warnings = [f"No call can be made yet: {found.problem}"]
    else:
        state, why = "signed_in", "Call `ask_claude`."
        warnings = [f"The credits are not known: {found.problem}"] if found.problem else []
    credential = found.credential
    ends = credential.expires_at if credential else None
    return _state(
        state,
        method=credential.kind if credential else "",
        account=found.account,
        expires_at=format_time(ends) if ends else "",
        profile_arn=found.profile_arn,
        region=found.region,
        source=credential.source if credential else "",
        credits=_credits(found),
        looked_at=[str(finding) for finding in found.findings],
        warnings=warnings,
        next_step=why,
    )


def _credits(found: SignInStatus) -> dict[str, Any]:
    credits = found.credits
    if credits.limit is None and not credits.plan:
        return {}
    return filled(
        {
            "used": credits.used,
            "limit": credits.limit,
            "resets_at": format_time(credits.resets_at) if credits.resets_at else "",
            "plan": credits.plan,
        }
    )


def _state(state: str, *, next_step: str, **facts: Any) -> types.CallToolResult:
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
