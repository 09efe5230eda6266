"""Judges the results of the probes: ok, warning or failed, with a cure; formats them. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from shlex import quote
from typing import Final, Literal

from rich.table import Table
from rich.text import Text

from kiro_mcp.auth.credentials import (
    BUILDER_ID_PROFILE_ARN,
    SOCIAL_PROFILE_ARN,
    Credential,
    CredentialKind,
)
from kiro_mcp.auth.refresh import how_to_renew
from kiro_mcp.auth.sources import Resolution
from kiro_mcp.cli.clients.launch import Launch
from kiro_mcp.cli.output import CODES, REFUSED, SIGN_IN, USAGE, harmless_json
from kiro_mcp.client.management import UsageLimits
from kiro_mcp.errors import KiroError
from kiro_mcp.redaction import redact
from kiro_mcp.regions import is_govcloud
from kiro_mcp.settings import Settings

Outcome = Literal["ok", "warning", "failed", "skipped"]

MAX_SKEW_SECONDS: Final = 60.0
"""The tolerated error of the clock. By this clock, tokens are renewed a minute before they end."""

SLOW_START_SECONDS: Final = 10.0
"""Some clients do not wait longer for a server to answer."""

_PROXY_STATUSES: Final = (407, 502, 503, 504)
"""The statuses with which a proxy answers itself if it cannot, or will not, forward a request."""

_SHARED_PROFILES: Final[Mapping[str, CredentialKind]] = {
    BUILDER_ID_PROFILE_ARN: "builder_id",
    SOCIAL_PROFILE_ARN: "social",
}
_SHARERS: Final = {"builder_id": "all AWS Builder IDs", "social": "Google and GitHub logins"}

_KINDS: Final = {
    "api_key": "an API key",
    "access_token": "an access token",
    "social": "a Google or GitHub login",
    "builder_id": "an AWS Builder ID login",
    "idc": "an IAM Identity Center login",
    "external_idp": "a login of an organisation's own sign-in",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check."""

    name: str
    outcome: Outcome
    found: str
    cure: str = ""
    """What the user should do; "" if nothing."""
    details: tuple[str, ...] = ()
    exit_code: int = 0
    """The exit code of the process, unless another check has a higher one; 0 unless it failed."""


def ok(name: str, found: str, *, details: Iterable[str] = ()) -> Check:
    """Make a check of something that works."""
    return Check(name=name, outcome="ok", found=found, details=tuple(details))


def warning(name: str, found: str, cure: str) -> Check:
    """Make a check of something that may not work as the user expects."""
    return Check(name=name, outcome="warning", found=found, cure=cure)


def failed(
    name: str, found: str, cure: str, *, exit_code: int = REFUSED, details: Iterable[str] = ()
) -> Check:
    """Make a check of something that keeps the server from working."""
    return Check(
        name=name,
        outcome="failed",
        found=found,
        cure=cure,
        exit_code=exit_code,
        details=tuple(details),
    )


def skipped(name: str, found: str, cure: str = "") -> Check:
    """Make a check that could not be done, or was not needed."""
    return Check(name=name, outcome="skipped", found=found, cure=cure)


def fault(name: str, error: KiroError, *, details: Iterable[str] = ()) -> Check:
    """Make a failed check from an error."""
    exit_code = CODES.get(error.code, REFUSED)
    if exit_code == USAGE:  # USAGE would mean a wrong use of the doctor itself.
        exit_code = REFUSED
    return failed(name, error.message, error.next_step, exit_code=exit_code, details=details)


def exit_code_of(checks: Iterable[Check]) -> int:
    """Return the exit code of the worst check; 0 if none failed."""
    return max((check.exit_code for check in checks), default=0)


# --- the account ---------------------------------------------------------------------------------


def judge_credential(
    resolution: Resolution, now: datetime, *, elsewhere: Sequence[str] = ()
) -> tuple[Check, Check]:
    """Judge which credential is used, and how long it is valid.

    Args:
        resolution: The credentials that were found.
        now: The time, aware UTC.
        elsewhere: The clients that have a credential of their own in their configuration.
    """
    details = [
        f"{finding.source}, {'used, ' if finding.is_used else ''}{finding.why}"
        for finding in resolution.findings
    ]
    nothing = skipped("token", "no token to check")
    if resolution.problem:
        return fault("sign-in", resolution.problem, details=details), nothing
    if resolution.credential is None:
        cure = "Run `kiro-mcp login`, or set KIRO_API_KEY."
        if elsewhere:
            found = (
                f"nobody is signed in here; clients with their own credential:"
                f" {', '.join(elsewhere)}"
            )
            return warning("sign-in", found, cure), nothing
        found = "nobody is signed in"
        return failed("sign-in", found, cure, exit_code=SIGN_IN, details=details), nothing
    credential = resolution.credential
    found = f"{_KINDS[credential.kind]} from {credential.source}"
    return ok("sign-in", found, details=details), _judge_token(credential, now)


def _judge_token(credential: Credential, now: datetime) -> Check:
    if credential.kind == "api_key":
        return ok("token", "an API key does not expire")
    if credential.is_usable(now):
        ends = credential.expires_at
        if credential.unreadable_end:
            found = f"its expiry date {credential.unreadable_end!r} cannot be read"
            cure = f"The token is used anyway. Correct the date in {credential.path}."
            return warning("token", found, cure)
        return ok("token", f"valid for {_span(ends - now)}" if ends else "its expiry is unknown")
    ended = (
        f"expired {_span(now - credential.expires_at)} ago" if credential.expires_at else "unused"
    )
    if credential.is_borrowed:
        return warning(
            "token", f"{ended}; the program it is from renews it", how_to_renew(credential)
        )
    if credential.can_refresh():
        return ok("token", f"{ended}; the next call renews it")
    return failed(
        "token", f"{ended}, and cannot be renewed", how_to_renew(credential), exit_code=SIGN_IN
    )


def judge_profile(credential: Credential, profile_arn: str) -> Check:
    """Judge whether the profile in the calls fits this kind of token."""
    name = "profile"
    if credential.kind == "api_key":
        return ok(name, "an API key has its own profile, so calls name none")
    found = _token_and_profile(credential, profile_arn)
    owner = _SHARED_PROFILES.get(profile_arn, credential.kind)
    if owner == credential.kind or credential.kind == "access_token":
        return ok(name, found)
    cure = "Unset KIRO_PROFILE_ARN, or sign in with the kind of login that the profile is for."
    return warning(
        name, f"{found}: the service refuses this combination or calls the token invalid", cure
    )


def judge_models(answer: int | KiroError, credential: Credential, profile_arn: str) -> Check:
    """Judge whether the service lists models for a token: some tokens can only query usage."""
    name = "models"
    if not isinstance(answer, KiroError):
        return ok(name, "the service lists models for this login")
    check = fault(name, answer)
    if answer.status not in (400, 401, 403):
        return check
    check = replace(check, found=f"{answer.message} {_token_and_profile(credential, profile_arn)}")
    if credential.kind == "builder_id" and profile_arn == BUILDER_ID_PROFILE_ARN:
        cure = (
            "This was seen with AWS Builder ID logins: usage works, but models and prompts are"
            " refused. Create an API key at https://app.kiro.dev and set KIRO_API_KEY."
        )
        return replace(check, cure=cure)
    return check


def _token_and_profile(credential: Credential, profile_arn: str) -> str:
    owner = _SHARED_PROFILES.get(profile_arn)
    whose = f"the profile that {_SHARERS[owner]} share" if owner else f"the profile {profile_arn}"
    return f"The token belongs to {_KINDS[credential.kind]}, with {whose}"


def judge_credits(credits: UsageLimits, now: datetime) -> Check:
    """Judge how many credits of the plan are left."""
    if credits.used is None or credits.limit is None:
        return ok("credits", "the service does not say how many are left")
    plan = f"{credits.plan}: " if credits.plan else ""
    resets = f", reset in {_span(credits.resets_at - now)}" if credits.resets_at else ""
    found = f"{plan}{credits.used:g} of {credits.limit:g} used{resets}"
    if credits.used >= credits.limit:
        if credits.is_overage_allowed:
            return warning("credits", f"{found}; more is billed", "See your account page.")
        return warning("credits", found, "Wait for the reset, or see your account page.")
    return ok("credits", found)


# --- the network ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The result of a request to a host."""

    host: str
    used_for: str
    status: int | None = None
    """The HTTP status; None if no answer came."""
    seconds: float = 0.0
    skew_seconds: float | None = None
    """By how much its clock is ahead of this machine's; None if it sent no date."""
    error: KiroError | None = None


def judge_hosts(reached: Iterable[Reached], *, is_proxied: bool) -> list[Check]:
    """Judge whether each host can be reached."""
    route = " through the proxy" if is_proxied else ""
    return [_judge_host(one, route) for one in reached]


def _judge_host(one: Reached, route: str) -> Check:
    name = f"host for {one.used_for}"
    if one.error:
        return fault(name, one.error)
    found = f"{one.host} answers{route} in {one.seconds:.2f} s (HTTP {one.status})"
    if one.status in _PROXY_STATUSES:
        return warning(
            name, found, "That may be a proxy's answer: check KIRO_MCP_PROXY_URL and HTTPS_PROXY."
        )
    return ok(name, found)


def judge_clock(reached: Iterable[Reached]) -> Check:
    """Judge this machine's clock by the dates of the hosts' answers."""
    skews = [one.skew_seconds for one in reached if one.skew_seconds is not None]
    if not skews:
        return skipped("clock", "no host sent the time")
    skew = min(skews, key=abs)
    if abs(skew) <= MAX_SKEW_SECONDS:
        return ok("clock", f"right to {abs(skew):.0f} s")
    side = "slow" if skew > 0 else "fast"
    return warning(
        "clock",
        f"{_span(timedelta(seconds=abs(skew)))} {side}",
        "Let the system set its clock: otherwise tokens are renewed too late, or all the time.",
    )


def judge_endpoint(settings: Settings, region: str, *, offline: bool) -> Check:
    """Report where prompts go; warn about a URL that replaces the service."""
    where = f"{', '.join(settings.endpoint_names)} in {region}"
    if offline:
        return ok("endpoint", f"{where}, emulated on this machine")
    hosts = sorted({url for url in settings.endpoint_overrides.values() if url})
    if hosts:
        return warning(
            "endpoint",
            f"{where}, but at {', '.join(hosts)}",
            "Unset KIRO_MCP_ENDPOINT_URL… to ask the service itself.",
        )
    if is_govcloud(region):
        return warning(
            "endpoint",
            f"{where}, which is AWS GovCloud: it is not confirmed that its hosts answer",
            "If calls fail, check the hosts below, or use a profile in another region"
            " (KIRO_PROFILE_ARN).",
        )
    return ok("endpoint", where)


# --- the machine ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSeen:
    """The state of the folder for logins, conversations and answers."""

    folder: str
    is_there: bool
    is_writable: bool
    """Whether it is writable, or the folder in which it would be created."""
    open_to_others: tuple[str, ...] = ()
    """The files that other users may read, with their modes."""
    size_bytes: int = 0
    database_error: str = ""
    """Why the database of conversations cannot be read; "" if it can, or does not exist."""
    is_newer: bool = False
    """Whether the reason is that a newer version created it."""
    is_in_use: bool = False
    """Whether a server has the database open."""


def judge_store(seen: StoreSeen) -> Check:
    """Judge the folder for logins, conversations and answers."""
    name = "store"
    if not seen.is_writable:
        cure = "Make it writable, or name another folder in KIRO_MCP_HOME."
        return failed(name, f"{seen.folder} is not writable", cure)
    if not seen.is_there:
        return ok(name, f"{seen.folder} will be created at the first use")
    if seen.database_error and not seen.is_in_use:
        remedy = "Update kiro-mcp" if seen.is_newer else "Move the database away"
        cure = f"{remedy}, or set KIRO_MCP_STORE=memory."
        return failed(name, f"{seen.folder}: {seen.database_error}", cure)
    if seen.open_to_others:
        found = f"{seen.folder}: other users can read: {', '.join(seen.open_to_others)}"
        return warning(name, found, f"Run `chmod -R go= {quote(seen.folder)}`.")
    return ok(name, f"{seen.folder}, {seen.size_bytes / 1_000_000:.1f} MB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The result of starting a server and listing its tools."""

    seconds: float = 0.0
    """From the start of the process to the list of tools."""
    tools: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """An entry for this server in a client's configuration."""

    client: str
    """The client's name for `kiro-mcp install`."""
    title: str
    name: str
    file: str
    launch: Launch
    environ: Mapping[str, str]
    """The variables that the server gets from the client."""
    is_absolute: bool
    is_there: bool
    """Whether the client can find the command."""
    is_switched_off: bool = False
    has_placeholders: bool = False
    """Whether its command has parts that only the client can fill in."""
    has_credential: bool = True
    """Whether the server will find a credential."""
    missing_variable: str = ""
    """The variable that is set here and with which it would find one; "" if no variable would."""
    brings_credential: bool = False
    """Whether the entry's own variables contain a credential."""
    faults: tuple[str, ...] = ()
    """What is wrong with its variables."""

    @property
    def is_startable(self) -> bool:
        """Whether it can be started here as the client does it."""
        return self.is_there and not self.is_switched_off and not self.has_placeholders


def judge_start(started: Started, name: str, cure: str) -> Check:
    """Judge a start of the server."""
    if started.error:
        return failed(name, started.error, cure)
    found = f"answers in {started.seconds:.1f} s, with {len(started.tools)} tools"
    if started.seconds > SLOW_START_SECONDS:
        return warning(
            name,
            found,
            "Some clients wait no longer than that. The quickest start is an installed one: use"
            " `uv tool install --compile-bytecode` with the path or name that this one came from.",
        )
    return ok(name, found)


def judge_client(entry: Configured, started: Started | None) -> Check:
    """Judge an entry of a client, and the start of its command; None if it was not started."""
    name = f"{entry.title}: {entry.name}"
    install = f"kiro-mcp install {entry.client} --name {entry.name}"
    again = f"Run `{install}`, which corrects it."
    command = entry.launch.command
    if entry.is_switched_off:
        return warning(name, f"it is switched off in {entry.file}", "Switch it on in the client.")
    if entry.has_placeholders:
        return skipped(name, f"only the client can complete its command ({entry.file})")
    if not entry.is_there:
        why = "does not exist" if entry.is_absolute else "is not on the client's PATH"
        return failed(name, f"its command {command} {why} ({entry.file})", again)
    check = judge_start(started or Started(error="it was not started"), name, again)
    if check.outcome != "ok":
        return check
    if entry.faults:
        cure = f"Correct it in {entry.file}."
        return warning(name, f"{check.found}, but: {' '.join(entry.faults)}", cure)
    if not entry.has_credential:
        cure = _sign_in_cure(entry.missing_variable, install)
        return warning(name, f"{check.found}, but it finds no credential there", cure)
    if not entry.is_absolute:
        return warning(name, f"{check.found}, but {command} is not an absolute path", again)
    return check


def _sign_in_cure(missing_variable: str, install: str) -> str:
    if missing_variable:
        return f"{missing_variable} is set here only: run `{install} --env {missing_variable}`."
    return f"Run `kiro-mcp login`; or set KIRO_API_KEY and run `{install} --env KIRO_API_KEY`."


def summary(checks: Sequence[Check]) -> str:
    """Return the number of failures and warnings as one line."""
    counts = {
        kind: sum(check.outcome == kind for check in checks) for kind in ("failed", "warning")
    }
    if not any(counts.values()):
        return "Everything is in order."
    parts = [f"{counts['failed']} failed"] if counts["failed"] else []
    if counts["warning"]:
        parts.append(f"{counts['warning']} warning{'s' if counts['warning'] > 1 else ''}")
    return ", ".join(parts).capitalize() + "."


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


# --- showing ------------------------------------------------------------------------------


_NAME_WIDTH: Final = 24
_STYLES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def redacted(check: Check) -> Check:
    """Return a check without secrets."""
    return replace(
        check,
        found=redact(check.found),
        cure=redact(check.cure),
        details=tuple(redact(detail) for detail in check.details),
    )


def as_json(checks: Sequence[Check]) -> str:
    """Return the checks as JSON."""
    report = {
        "exit_code": exit_code_of(checks),
        "checks": [
            {
                "name": check.name,
                "outcome": check.outcome,
                "found": check.found,
                "cure": check.cure,
                "details": list(check.details),
            }
            for check in checks
        ],
    }
    return harmless_json(report)


def as_lines(checks: Sequence[Check]) -> Iterator[str]:
    """Yield the lines for a pipe."""
    for check in checks:
        yield f"{check.outcome:<8} {check.name}: {check.found}"
        yield from (f"{'':<8}   {detail}" for detail in check.details)
        if check.cure:
            yield f"{'':<8}   → {check.cure}"


def as_table(checks: Sequence[Check]) -> Table:
    """Return the table for a terminal."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    for check in checks:
        said = Text(check.found)
        for detail in check.details:
            said.append(f"\n{detail}", style="dim")
        if check.cure:
            said.append(f"\n→ {check.cure}")
        table.add_row(Text(check.outcome, style=_STYLES[check.outcome]), check.name, said)
    return table
