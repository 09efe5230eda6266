"""Turns the frames of the service's answer into typed events.

The frames come from `kiro_mcp.wire.eventstream`, and the events go to `kiro_mcp.wire.reply`. A
frame names its event in `:event-type` and contains a JSON object. An error has its name in
`:exception-type` or `:error-code` instead. Only this module knows the service's member names
(`toolUseId`). An unknown or unreadable event does not end an answer; it becomes an `Ignored` or a
`Malformed`.

A body that is not an event stream, such as a proxy's page, becomes an error (`ForeignBody`). The
limits of one answer are at the top.

Source of truth: the service's published event model, and its streams as observed in 2025 and 2026
(tests/vectors/kiro-capture.json).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from kiro_mcp.chat import CodeReference, Fault, JsonObject, Refusal, WebLink
from kiro_mcp.errors import AnswerBroken
from kiro_mcp.wire.eventstream import Frame
from kiro_mcp.wire.json_values import (
    UnreadableError,
    count_member,
    first_word,
    mend_surrogates,
    number_member,
    object_member,
    object_members,
    parse_object,
    text_member,
    word_member,
)

# --- limits -------------------------------------------------------------------------------
# They apply to one answer. An answer that exceeds a limit ends there and keeps the part before it.
# All are far above the size of real answers and far below the memory of a process.

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""Bytes of the stream, which is about five times as large as its text."""
MAX_TEXT_CHARACTERS: Final = 32 * 1024 * 1024
"""Text and thinking together. Models are cut off far below a million."""
MAX_INPUT_CHARACTERS: Final = 32 * 1024 * 1024
"""Arguments of all tool uses together. The service breaks off at about 40 thousand."""
MAX_TOOL_USES: Final = 4096
"""Models use a few dozen at most."""
MAX_PARTS: Final = 16_384
"""Runs of text, blocks of thinking and tool uses."""
MAX_LISTED: Final = 1000
"""References, and also links. Further ones are left out."""
MAX_WARNINGS: Final = 50
"""Further warnings are only counted."""
MAX_IGNORED_TYPES: Final = 100
"""Types of events that are counted by name. The service has fewer than twenty."""
MAX_TYPE_CHARACTERS: Final = 80
"""The length of an event's name; a header could have 64 KiB."""


def over_limit(limit: str) -> AnswerBroken:
    """Return the error that ends an answer because it has more than a limit."""
    return AnswerBroken(
        f"The answer was cut off, because it has more than {limit}.",
        next_step="Ask for less at a time.",
    )


# --- the events ---------------------------------------------------------------------------
# Neither frozen nor keyword-only, because each frame creates one, and freezing it would take as
# long as parsing the frame's JSON.


@dataclass(slots=True)
class Text:
    """The next piece of the answer. It may end with half of a surrogate pair."""

    text: str
    model_id: str = ""
    """The service's id of the model; "" if it is not sent."""


@dataclass(slots=True)
class Reasoning:
    """The next piece of the model's reasoning. Any member may be empty."""

    text: str = ""
    signature: str = ""
    redacted: str = ""
    """A whole block of encrypted reasoning, as base64."""


@dataclass(slots=True)
class ToolUseFragment:
    """A piece of a tool use."""

    id: str
    name: str
    input: str
    """The next piece of the arguments' JSON, cut anywhere; "" if the event has none."""
    is_last: bool = False
    is_snapshot: bool = False
    """Whether `input` is the whole of the arguments so far, rather than a piece."""


@dataclass(slots=True)
class Stop:
    """Why the model stopped, in the service's words."""

    reason: str
    refusal: Refusal | None = None
    """The details of a refusal."""


@dataclass(slots=True)
class TokenCounts:
    """Exact counts of tokens. The service sends zeros if it has not counted."""

    uncached_input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


@dataclass(slots=True)
class Metering:
    """The cost of the call; None if the service charges in another unit."""

    credits: float | None


@dataclass(slots=True)
class ContextUsage:
    """How full the context window is, in percent; it can exceed 100."""

    percent: float | None


@dataclass(slots=True)
class Citations:
    """Licensed code that the text resembles, and web pages that the service names."""

    references: tuple[CodeReference, ...] = ()
    links: tuple[WebLink, ...] = ()


@dataclass(slots=True)
class Ignored:
    """An event without meaning for a caller, or an unknown one."""

    event_type: str


@dataclass(slots=True)
class Malformed:
    """An event that cannot be read."""

    event_type: str
    problem: str
    """The end of a sentence about the event, such as "has no id"."""


@dataclass(slots=True)
class Several:
    """The events of one frame, in order."""

    events: tuple["Event", ...]


Event: TypeAlias = (
    Text
    | Reasoning
    | ToolUseFragment
    | Stop
    | TokenCounts
    | Metering
    | ContextUsage
    | Citations
    | Fault
    | Ignored
    | Malformed
    | Several
)
"""A `Fault` is an error with which the service ends its answer."""


# --- reading ------------------------------------------------------------------------------


MAX_MESSAGE_CHARACTERS: Final = 500
"""Longer messages of the service are cut."""

MAX_RETRY_AFTER_SECONDS: Final = 1e9
"""Longer waits that the service asks for are cut."""


def read_event(frame: Frame) -> Event:
    """Return the event of a frame. Never raises."""
    headers = frame.headers
    event_type = headers.get(":event-type", "")
    kind = headers.get(":message-type")
    if kind != "event" and (kind is not None or ":exception-type" in headers):
        if kind in (None, "exception"):
            return _read_failure(frame.payload, str(headers.get(":exception-type", "")))
        if kind == "error":
            fault = _read_failure(frame.payload, str(headers.get(":error-code", "")))
            words = _shortened(str(headers.get(":error-message", "")))
            return replace(fault, message=words or fault.message)
        return Malformed(str(event_type), f"is a message of the kind {kind!r:.80}")
    try:
        members = parse_object(frame.payload)
        if event_type == "assistantResponseEvent":  # Fast path: four frames in five are like this.
            content = members.get("content")
            if isinstance(content, str) and len(members) == 1:
                return Text(content)
            if isinstance(content, str) and len(members) == 2 and "modelId" in members:
                return Text(content, word_member(members, "modelId"))
        if not event_type and not _is_error(members):
            event_type = next((key for key in members if key in _READERS), "")
        inner = members.get(event_type) if isinstance(event_type, str) else None
        if isinstance(inner, dict):
            members = inner
        if _is_error(members):
            return read_fault(members)
        if not event_type:
            return Malformed("", "does not say what it is")
        reader = _READERS.get(event_type)
        return reader(members) if reader else Ignored(str(event_type))
    except (UnreadableError, RecursionError) as error:
        if event_type and event_type not in _READERS:
            return Ignored(str(event_type))
        is_deep = isinstance(error, RecursionError)
        return Malformed(str(event_type), "is nested too deeply" if is_deep else str(error))


def read_fault(members: JsonObject, name: str = "") -> Fault:
    """Read an error, from a frame of an answer or from the body of a refusal.

    Args:
        members: The error's JSON object. The error may be one level down in it.
        name: The error's name; by default the one in the object.
    """
    inner = members.get("error") or members.get("Output")
    sources = (members, inner) if isinstance(inner, dict) else (members,)
    waits = (number_member(source, "retryAfterMilliseconds") for source in sources)
    milliseconds = next((wait for wait in waits if wait is not None and wait >= 0), None)
    return Fault(
        name=_bare_name(name or first_word(sources, ("__type", "_type", "code"))),
        reason=first_word(sources, ("reason",)),
        message=_shortened(first_word(sources, ("message", "Message", "errorMessage"))),
        retry_after_seconds=None
        if milliseconds is None
        else min(milliseconds / 1000, MAX_RETRY_AFTER_SECONDS),
    )


def _read_failure(payload: bytes, name: str) -> Fault:
    try:
        return read_fault(parse_object(payload), name)
    except UnreadableError:
        return Fault(name=_bare_name(name), message=_shortened(payload.decode(errors="replace")))


def _is_error(members: JsonObject) -> bool:
    """Whether the payload of an event is an error document."""
    if "__type" in members or "_type" in members:
        return True
    has_error_type = members.get("type") in ("error", "exception")
    return has_error_type and ("message" in members or "error" in members)


# --- one reader for each event ------------------------------------------------------------


def _read_assistant_response(members: JsonObject) -> Event:
    text = Text(text_member(members, "content"), word_member(members, "modelId"))
    # Not observed, but other clients of the service look for these two here.
    tool_uses = [_read_whole_tool_use(item) for item in object_members(members, "toolUses")]
    stop = _read_stop(members)
    return _together([text, *tool_uses, *([stop] if stop.reason else [])])


def _read_reasoning(members: JsonObject) -> Event:
    return Reasoning(
        text_member(members, "text"),
        mend_surrogates(text_member(members, "signature")),
        mend_surrogates(text_member(members, "redactedContent")),
    )


def _read_tool_use(members: JsonObject) -> ToolUseFragment:
    tool_use_id = mend_surrogates(text_member(members, "toolUseId"))
    if not tool_use_id:
        raise UnreadableError("has no id of a tool use")
    name = mend_surrogates(text_member(members, "name"))
    arguments = members.get("input")
    is_last = members.get("stop") is True
    if isinstance(arguments, str):
        return ToolUseFragment(tool_use_id, name, arguments, is_last)
    if arguments in (None, {}):
        return ToolUseFragment(tool_use_id, name, "", is_last)
    # Not observed: the arguments as an object that grows from frame to frame.
    snapshot = json.dumps(arguments, ensure_ascii=False)
    return ToolUseFragment(tool_use_id, name, snapshot, is_last, is_snapshot=True)


def _read_whole_tool_use(members: JsonObject) -> Event:
    try:
        return _read_tool_use({**members, "stop": True})
    except UnreadableError as error:
        return Malformed("assistantResponseEvent", str(error))


def _read_metadata(members: JsonObject) -> Event:
    details = object_member(object_member(members, "stopDetails"), "refusal")
    reason = word_member(members, "stopReason") or ("REFUSAL" if details else "")
    counts = object_member(members, "tokenUsage")
    events: list[Event] = []
    if reason:
        refusal = Refusal(
            category=_shortened(word_member(details, "category")),
            explanation=_shortened(word_member(details, "explanation")),
            recommended_model=_shortened(word_member(details, "recommendedModel")),
        )
        events.append(Stop(reason, refusal if details else None))
    if counts or "usage" in members:
        events.append(_read_token_counts(counts or object_member(members, "usage")))
    if (percent := number_member(counts, "contextUsagePercentage")) is not None:
        events.append(ContextUsage(percent))
    return _together(events or [Ignored("metadataEvent")])


def _read_token_counts(members: JsonObject) -> TokenCounts:
    return TokenCounts(
        uncached_input=count_member(members, "uncachedInputTokens")
        or count_member(members, "inputTokens"),
        output=count_member(members, "outputTokens"),
        cache_read=count_member(members, "cacheReadInputTokens"),
        cache_write=count_member(members, "cacheWriteInputTokens"),
    )


def _read_stop(members: JsonObject) -> Stop:
    return Stop(first_word([members], ("stopReason", "stop_reason")))


def _read_metering(members: JsonObject) -> Event:
    is_credit = word_member(members, "unit").lower() in ("", "credit", "credits")
    return Metering(number_member(members, "usage") if is_credit else None)


def _read_references(members: JsonObject) -> Event:
    return Citations(
        references=tuple(
            CodeReference(
                license_name=word_member(item, "licenseName"),
                repository=word_member(item, "repository"),
                url=word_member(item, "url"),
            )
            for item in object_members(members, "references")
        )
    )


def _read_links(members: JsonObject) -> Event:
    links = (
        WebLink(
            url=word_member(item, "url"),
            title=word_member(item, "title"),
            snippet=word_member(item, "snippet"),
        )
        for item in object_members(members, "supplementaryWebLinks")
    )
    found = Citations(links=tuple(link for link in links if link.url))
    # Not observed, but other clients of the service read counts of tokens here.
    counts = _read_token_counts(members)
    return _together([found, counts] if counts != TokenCounts() else [found])


def _read_citation(members: JsonObject) -> Event:
    url = word_member(members, "citationLink")
    if not url:
        return Ignored("citationEvent")
    return Citations(links=(WebLink(url=url, snippet=word_member(members, "citationText")),))


def _read_invalid_state(members: JsonObject) -> Event:
    fault = read_fault(members, "invalidStateEvent")
    return replace(fault, message=fault.message or fault.reason or "Invalid state")


_READERS: Final[dict[object, Callable[[JsonObject], Event]]] = {
    "assistantResponseEvent": _read_assistant_response,
    "toolUseEvent": _read_tool_use,
    "reasoningContentEvent": _read_reasoning,
    "metadataEvent": _read_metadata,
    "meteringEvent": _read_metering,
    "contextUsageEvent": lambda members: ContextUsage(
        number_member(members, "contextUsagePercentage")
    ),
    "codeReferenceEvent": _read_references,
    "supplementaryWebLinksEvent": _read_links,
    "citationEvent": _read_citation,
    "messageMetadataEvent": lambda _: Several(()),
    "initial-response": lambda _: Several(()),
    "invalidStateEvent": _read_invalid_state,
    "error": lambda members: read_fault(members, "error"),
    # In no model and in no capture; other clients know them.
    "messageStopEvent": _read_stop,
    "message_stop": _read_stop,
    "usageEvent": lambda members: _read_token_counts(object_member(members, "usage")),
    "metricsEvent": lambda members: _read_token_counts(object_member(members, "usage")),
}
"""The service's other events have no meaning for a caller: `followupPromptEvent`, `codeEvent`,
`intentsEvent`, `interactionComponentsEvent`, `dryRunSucceedEvent` and `toolResultEvent`."""


def _together(events: list[Event]) -> Event:
    return events[0] if len(events) == 1 else Several(tuple(events))


# --- words --------------------------------------------------------------------------------


def _bare_name(name: str) -> str:
    """Remove the namespace before `#` and the URL after `:` from the name of an error."""
    return mend_surrogates(name).rpartition("#")[2].partition(":")[0]


def _shortened(words: str) -> str:
    if len(words) <= MAX_MESSAGE_CHARACTERS:
        return words
    return words[: MAX_MESSAGE_CHARACTERS - 1] + "…"


# --- a body that is not an event stream ---------------------------------------------------


MAX_BODY_BYTES: Final = 64 * 1024
"""How much of such a body is read. Error documents have a few hundred bytes."""
MAX_TITLE_CHARACTERS: Final = 200

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_DOCUMENT: Final = (b"{", b"[", b"<")
_EVENT_LINE: Final = (b"data:", b"event:", b"id:", b"retry:")
_JUDGED_BYTES: Final = 12
"""The length of a frame's prelude. With that many bytes the decoder finds a fault itself."""
_NO_DETAILS: Final = Fault(message="The answer is JSON, not an event stream.")
_TITLE: Final = re.compile(r"<(title|Message)\b[^>]*>([^<]*)<", re.IGNORECASE)


def looks_foreign(beginning: bytes) -> bool | None:
    """Whether a body is not an event stream, by its first bytes; None if more are needed."""
    text = beginning[:_JUDGED_BYTES].removeprefix(_BYTE_ORDER_MARK).lstrip()
    if text.startswith(_DOCUMENT + _EVENT_LINE):
        return True
    is_short = len(beginning) < _JUDGED_BYTES
    is_possible = any(line.startswith(text) for line in _EVENT_LINE)
    return None if is_short and (is_possible or _BYTE_ORDER_MARK.startswith(text)) else False


class ForeignBody:
    """Collects such a body until its error can be read."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._open_braces = 0

    def feed(self, data: bytes) -> Fault | None:
        """Add the next bytes; return the error as soon as it can be read."""
        data = data[: MAX_BODY_BYTES - len(self._body)]
        self._body += data
        self._open_braces += data.count(b"{") - data.count(b"}")
        if len(self._body) == MAX_BODY_BYTES or not self._text().startswith(b"{"):
            return self.close()
        # Braces in strings may hide the end of the object here. `close` still reads it.
        return None if self._open_braces else self._read_object()

    def close(self) -> Fault:
        """Return the error according to the bytes so far."""
        text = self._text()
        if text.startswith(b"<"):
            title = _TITLE.search(text.decode(errors="replace"))
            words = f": {title[2].strip():.{MAX_TITLE_CHARACTERS}}" if title else "."
            return Fault(message=f"The answer is a page, not an event stream{words}")
        if not text.startswith(_DOCUMENT):
            return Fault(message="The answer is a text stream, not an event stream of AWS.")
        return self._read_object() or _NO_DETAILS

    def _read_object(self) -> Fault | None:
        try:
            fault = read_fault(parse_object(self._text()))
        except (UnreadableError, RecursionError):
            return None
        return fault if fault != Fault() else _NO_DETAILS

    def _text(self) -> bytes:
        return bytes(self._body).removeprefix(_BYTE_ORDER_MARK).strip()
