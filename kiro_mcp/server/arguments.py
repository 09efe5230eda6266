"""The tools' arguments: the published schemas, and the reading of a call's arguments.

The schemas are flat and simple, because a model's API refuses every request if a schema has one
keyword that it does not know. Reading is lenient, because models and clients break the schemas:
they write JSON or numbers as text, one value instead of a list, and add members of their own. A
value is read if its meaning is clear. Otherwise an error names the argument, its value and the
required form.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from typing import Annotated, Any, Final, Literal, NoReturn, TypeAlias, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import from_json

from kiro_mcp.chat import JsonObject
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.wire.json_values import json_text, plain_json
from kiro_mcp.wire.models import read_effort

MAX_NUMBER: Final = 2**31 - 1
"""The largest number that an argument accepts."""

MAX_WORD_CHARACTERS: Final = 2_000
"""The longest name, id or other word. Real ones have under 100; a URL may have more."""

MAX_UNKNOWN: Final = 100
"""How many unknown arguments are ignored. A call with more is refused."""

MAX_OBJECTS: Final = 10_000
"""How many messages, tools or tool results a call may have. Checking more would delay all other
calls by 50 ms or longer."""

MAX_IGNORED: Final = 20
"""How many unknown arguments are compared with the known ones. Clients add two or three."""

MAX_NAME_CHARACTERS: Final = 40
"""How many characters of an unknown name are compared."""

_NOT_A_LETTER: Final = re.compile(r"[\W_]")

_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")

_INJECTED: Final = frozenset(
    {"action", "chatinput", "sessionid", "tool", "toolcallid", "waitforprevious"}
)
"""Arguments that some clients add to every call. They are not a model's mistake."""

_INJECTED_ACTIONS: Final = frozenset({"sendmessage", "loadprevioussession"})
"""Values of `action` that one client adds to every call, even of `login`."""


# --- reading one value --------------------------------------------------------------------


def _refuse(place: str | None, value: object, form: str) -> NoReturn:
    shown = value if isinstance(value, str) else json_text(plain_json(value))
    raise InvalidRequest(
        f"The argument {place} must be {form}, and it is {quoted(shown)}.",
        next_step="Correct it and call again.",
    )


def _is_empty(value: object) -> bool:
    """Whether a value means "not given": models fill in arguments that they do not use."""
    if isinstance(value, list):
        return all(_says_nothing(item) for item in cast("list[object]", value))
    return _says_nothing(value)


def _says_nothing(value: object) -> bool:
    if isinstance(value, str):
        return not value or value.isspace()  # `strip` would copy megabytes.
    return value is None or value in ({}, [])


def _from_text(value: object, place: str | None, form: str) -> Any:
    """Parse a value that is JSON text, which may be in a code fence or encoded twice.

    Raises:
        InvalidRequest: It is text, but not JSON.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].strip().removeprefix("json")
    try:
        read = from_json(text)
        return from_json(read) if isinstance(read, str) and read[:1] in ("[", "{") else read
    except ValueError:
        _refuse(place, value, form)


def _read_text(value: object, info: ValidationInfo) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json_text(plain_json(value))
    _refuse(info.field_name, value, "text")


def _read_short_text(value: object, info: ValidationInfo) -> str:
    text = _read_text(value, info)
    if len(text) <= MAX_WORD_CHARACTERS:
        return text
    _refuse(info.field_name, text, f"at most {MAX_WORD_CHARACTERS} characters")


def _read_number(value: object, info: ValidationInfo) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(cast("Any", value))
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if 0 <= number <= MAX_NUMBER:
        return number
    _refuse(info.field_name, value, f"a number from 0 to {MAX_NUMBER}")


def _read_whole_number(value: object, info: ValidationInfo) -> int:
    number = _read_number(value, info)
    if number.is_integer():
        return int(number)
    _refuse(info.field_name, value, f"a whole number from 0 to {MAX_NUMBER}")


def _read_flag(value: object, info: ValidationInfo) -> bool:
    word = value.strip().lower() if isinstance(value, str) else json_text(plain_json(value))
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    _refuse(info.field_name, value, "true or false")


def _read_object(value: object, info: ValidationInfo) -> JsonObject:
    form = "a JSON object, or one as JSON text"
    read = _from_text(value, info.field_name, form)
    if isinstance(read, list):
        items = cast("list[object]", read)
        read = items[0] if len(items) == 1 else None if _is_empty(items) else items
    if read is None:
        return {}
    if isinstance(read, dict):
        return cast("JsonObject", read)
    _refuse(info.field_name, value, form)


def _read_objects(value: object, info: ValidationInfo) -> list[JsonObject]:
    form = "a list of JSON objects, or one as JSON text"
    name = info.field_name
    read = _from_text(value, name, form)
    if isinstance(read, dict):
        members = cast("dict[str, object]", read)
        wrapped = members.get(next(iter(members), ""))
        is_wrapper = members.keys() <= {name, "item", "items"} and len(members) == 1
        read = cast("object", wrapped if is_wrapper and isinstance(wrapped, list) else [members])
    if not (read is None or isinstance(read, list)):
        _refuse(name, value, form)
    items = cast("list[object]", read or [])
    if len(items) > MAX_OBJECTS:
        raise InvalidRequest(
            f"The argument {name} has {len(items)} items, and {MAX_OBJECTS} is the limit.",
            next_step="Leave out the oldest, or sum them up in one.",
        )
    objects: list[JsonObject] = []
    for number, item in enumerate([] if _is_empty(items) else items):
        if _says_nothing(item):
            continue
        place, form = f"{name}[{number}]", "a JSON object"
        read = _from_text(item, place, form)
        if isinstance(read, dict):
            objects.append(cast("JsonObject", read))
        elif not _says_nothing(read):
            _refuse(place, item, form)
    return objects


def _read_texts(value: object, info: ValidationInfo) -> list[object]:
    """Read a list of texts, for `images` also of objects. A path that looks like JSON is text."""
    takes_objects = info.field_name == "images"
    form = "text or an image block" if takes_objects else "text"

    def parsed(item: object, begins: str) -> object:
        if isinstance(item, str) and item.lstrip()[:1] in begins:
            with suppress(InvalidRequest):
                return _from_text(item, info.field_name, form)
        return item

    read = parsed(value, '["{n')
    items = cast("list[object]", read) if isinstance(read, list) else [read]
    found: list[object] = []
    for number, item in enumerate(items):
        if _says_nothing(item):
            continue
        image = parsed(item, "{") if takes_objects else None
        if isinstance(image, dict) and image:
            found.append(cast("object", image))
        elif isinstance(item, str | int | float):
            found.append(_read_text(item, info))
        else:
            _refuse(
                f"{info.field_name}[{number}]" if read is items else info.field_name, item, form
            )
    return found


def _read_tool_choice(value: object, info: ValidationInfo) -> str:
    """Return a word or a tool's name, also from the objects that OpenAI and Anthropic use."""
    read = value
    if isinstance(value, str) and value.lstrip()[:1] in '{"':
        read = _from_text(value, info.field_name, _TOOL_CHOICE_FORM)
    if isinstance(read, dict):
        members = cast("dict[str, object]", read)
        inner = members.get("function", members.get("custom", members.get("tool")))
        named = cast("dict[str, object]", inner) if isinstance(inner, dict) else members
        kind = members.get("type")
        is_word = isinstance(kind, str) and kind in _TOOL_CHOICES
        read = named.get("name") or (kind if is_word else None)
    if not isinstance(read, str) or len(read) > MAX_WORD_CHARACTERS:
        _refuse(info.field_name, value, _TOOL_CHOICE_FORM)
    word = read.strip()
    return _TOOL_CHOICES.get(word.lower(), word)


_TOOL_CHOICES: Final = {"auto": "", "none": "none", "required": "required", "any": "required"}
_TOOL_CHOICE_FORM: Final = "auto, none, required or a tool's name"


def _word(*choices: str) -> BeforeValidator:
    def read(value: object, info: ValidationInfo) -> str:
        word = re.sub(r"[\s-]+", "_", value.strip().lower()) if isinstance(value, str) else ""
        if word in choices:
            return word
        if info.field_name == "action" and word.replace("_", "") in _INJECTED_ACTIONS:
            return ""
        _refuse(info.field_name, value, f"one of {', '.join(choices)}")

    return BeforeValidator(read)


def _published(**schema: Any) -> WithJsonSchema:
    return WithJsonSchema(schema)


def _items(**properties: str) -> WithJsonSchema:
    """Publish a list of objects. Gemini refuses objects without a declared property."""
    declared = {name: {"type": kind} for name, kind in properties.items()}
    return _published(type="array", items={"type": "object", "properties": declared})


def _argument(default: Any, says: str) -> Any:
    """Declare an argument: its default, and what clients are told about it."""
    return Field(default, description=says)


Text: TypeAlias = Annotated[str, BeforeValidator(_read_text)]
ShortText: TypeAlias = Annotated[str, BeforeValidator(_read_short_text)]
Name: TypeAlias = Annotated[ShortText, AfterValidator(lambda text: text.strip())]
EffortText: TypeAlias = Annotated[ShortText, AfterValidator(read_effort)]
ToolChoice: TypeAlias = Annotated[str, BeforeValidator(_read_tool_choice)]
WholeNumber: TypeAlias = Annotated[int, BeforeValidator(_read_whole_number)]
Number: TypeAlias = Annotated[float, BeforeValidator(_read_number)]
Flag: TypeAlias = Annotated[bool, BeforeValidator(_read_flag)]
Objects: TypeAlias = Annotated[list[dict[str, Any]], BeforeValidator(_read_objects)]
Messages: TypeAlias = Annotated[Objects, _items(role="string", content="string")]
Tools: TypeAlias = Annotated[
    Objects, _items(name="string", description="string", inputSchema="string")
]
ToolResults: TypeAlias = Annotated[
    Objects, _items(id="string", content="string", is_error="boolean")
]
Texts: TypeAlias = Annotated[list[str], BeforeValidator(_read_texts)]
Images: TypeAlias = Annotated[
    list[str | dict[str, Any]],
    BeforeValidator(_read_texts),
    _published(type="array", items={"type": "string"}),
]
Schema: TypeAlias = Annotated[
    dict[str, Any], BeforeValidator(_read_object), _published(type="string")
]
Action: TypeAlias = Annotated[
    Literal["", "status", "start", "logout"],
    _word("status", "start", "logout"),
    _published(type="string", enum=["status", "start", "logout"]),
]
Method: TypeAlias = Annotated[
    Literal["builder_id", "idc", "google", "github"],
    _word("builder_id", "idc", "google", "github"),
]


# --- the arguments of each tool -----------------------------------------------------------


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, frozen=True)

    @property
    def ignored(self) -> list[str]:
        """The names of unknown arguments; at most `MAX_IGNORED`."""
        return list(islice(self.model_extra or {}, MAX_IGNORED))

    @property
    def warnings(self) -> list[str]:
        """Warnings about unknown arguments whose names are close to a known one."""
        known = {_NOT_A_LETTER.sub("", name): name for name in type(self).model_fields}
        warnings: list[str] = []
        for name in self.ignored:
            plain = _NOT_A_LETTER.sub("", name[:MAX_NAME_CHARACTERS]).lower()
            close = get_close_matches(plain, known, n=1, cutoff=0.8)
            if close and plain not in _INJECTED:
                meant = known[close[0]]
                warnings.append(f"The argument {quoted(name)} was ignored. Did you mean {meant}?")
        return warnings


class AskArguments(_Arguments):
    """The arguments of `ask_claude`."""

    prompt: Text = _argument("", "The next user message.")
    system: Text = _argument("", "System prompt: who Claude is and how it should answer.")
    model: Name = _argument(
        "", "Model id or alias from list_models; empty for the default, usually auto."
    )
    effort: EffortText = _argument(
        "",
        "How hard to think: off low medium high xhigh max, or what list_models names; the nearest"
        " that the model offers is used. Empty: its default.",
    )
    conversation_id: Name = _argument("", "Continue this conversation; empty starts one.")
    from_turn: WholeNumber = _argument(
        0, "Continue from this earlier turn instead of the last, as a fork; 0 for the last."
    )
    messages: Messages = _argument(
        [],
        "A whole history, before prompt or instead of it. Messages of Anthropic, OpenAI and MCP are"
        " taken whole, also content as a list of blocks.",
    )
    tools: Tools = _argument(
        [],
        "Tools that Claude may ask you to run; inputSchema is a JSON Schema, an object or its JSON"
        " text. The shapes of MCP, Anthropic and OpenAI are taken. Calls come back in tool_calls;"
        " nothing is run here.",
    )
    tool_choice: ToolChoice = _argument(
        "", "auto; none: no tools; required: ask Claude to call one; or a tool's name. Empty: auto."
    )
    tool_results: ToolResults = _argument([], "What your tools answered to the last turn's calls.")
    images: Images = _argument(
        [], "Images for the prompt: data URLs, base64, or paths in an open folder."
    )
    files: Texts = _argument([], "Text files to attach: paths in an open folder.")
    output_schema: Schema = _argument(
        {},
        "JSON Schema, an object or its JSON text: the answer is parsed and checked against it, and"
        " put in data.",
    )
    max_tokens: WholeNumber = _argument(
        0, "Longest answer in tokens, where the model takes it; 0 for no limit."
    )
    wait_seconds: Number = _argument(
        -1,  # Not given: the setting counts.
        "After so long the call returns status running and the text so far; the answer goes on. 0"
        " waits to the end. Leave it out for the server's setting.",
    )
    answer_id: Name = _argument("", "Collect an answer that was running; leave all else empty.")
    dry_run: Flag = _argument(
        False, "Send nothing: say what would be sent, its size and what was repaired."
    )


class ListModelsArguments(_Arguments):
    """The arguments of `list_models`."""

    refresh: Flag = _argument(False, "Ask the service again instead of using a kept list.")


class LoginArguments(_Arguments):
    """The arguments of `login`."""

    action: Action = _argument(
        "",
        "status: who is signed in, and credits left. start: sign in. logout: forget our own login."
        " Not given: status, and start if signed out.",
    )
    method: Method = _argument(
        "builder_id",
        "How to sign in, builder_id if not given; idc is a company's IAM Identity Center.",
    )
    start_url: Name = _argument("", "For idc: the company's start URL.")
    region: Name = _argument("", "For idc: the region of its directory, e.g. us-east-1.")


Arguments = TypeVar("Arguments", bound=_Arguments)


def input_schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments that clients see."""
    properties = cast("dict[str, dict[str, Any]]", arguments.model_json_schema()["properties"])
    for declared in properties.values():
        declared.pop("title")
        declared.pop("default")  # Some strict modes refuse it.
    return {"type": "object", "properties": properties, "additionalProperties": False}


def read_arguments(kind: type[Arguments], tool: str, given: Mapping[str, Any]) -> Arguments:
    """Read a call's arguments.

    Raises:
        InvalidRequest: One is invalid. The error names it, the required form and the value.
    """
    unknown = len(given) - len(given.keys() & kind.model_fields.keys())
    if unknown > MAX_UNKNOWN:
        raise InvalidRequest(
            f"{tool} was called with more than {MAX_UNKNOWN} arguments that it does not know.",
            next_step=f"Use only {', '.join(kind.model_fields)}.",
        )
    present = {name: value for name, value in given.items() if not _is_empty(value)}
    try:
        return kind.model_validate(present)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(str(step) for step in fault["loc"])
    raise InvalidRequest(
        f"The argument {name} of {tool} cannot be used: {fault['msg']}.",
        next_step="Correct it and call again.",
    )
