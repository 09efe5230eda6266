from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.chat import JsonObject, ToolSpec, ToolUse
from kiro_mcp.wire.text_tool_calls import MAX_CANDIDATES, CallWatch, find_calls
from tests.support.frames import END, exception, reasoning, text, tool
from tests.support.replies import outline, read, read_all, said

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "lines": {"type": ["integer", "null"]},
        "flags": {"type": "array"},
        "name": {"type": ["string", "null"]},
        "any": {},
        "free": {"enum": [1, "x"]},
    },
}
TOOLS: dict[str, JsonObject] = {"cherche": {}, "lire": SCHEMA}
CALL = '[Called cherche with args: {"q":"a"}]'


def invoke(**values: str) -> str:
    """A call of `lire` in the form of tags."""
    parameters = (f'<parameter name="{name}">{value}</parameter>' for name, value in values.items())
    return f'<invoke name="lire">{"".join(parameters)}</invoke>'


INVOKE = invoke(path="/a")
CLOSED = "</parameter></invoke>"


def shown(segments: list[str | ToolUse]) -> list[str]:
    """Text as it is, calls as `name{arguments}`."""
    return [
        segment if isinstance(segment, str) else f"{segment.name}{segment.arguments}"
        for segment in segments
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            r'[Called cherche with args: {"q":"a ] } \" b"}]',
            ["cherche{'q': 'a ] } \" b'}"],
            id="brackets-and-quotes-in-a-string",
        ),
        pytest.param(
            f"avant\n\n  {CALL}\t après  ",
            ["avant\n\n  ", "cherche{'q': 'a'}", "\t après  "],
            id="text-around-stays-as-it-is",
        ),
        pytest.param(f"{CALL}\n{CALL}", ["cherche{'q': 'a'}", "\n", "cherche{'q': 'a'}"], id="two"),
        pytest.param(
            '[Called cherche with args: {"q":{"a":[1,{}]}} \n]',
            ["cherche{'q': {'a': [1, {}]}}"],
            id="nested-and-white-space-before-the-end",
        ),
        pytest.param("[Called cherche with args: {}]", ["cherche{}"], id="no-arguments"),
        pytest.param(
            '[Called cherche with args: {"q":"a\nb"}]',
            ["cherche{'q': 'a\\nb'}"],
            id="raw-newline-in-a-string",
        ),
        pytest.param(
            "[Called [Called cherche with args: {}]",
            ["[Called ", "cherche{}"],
            id="after-a-false-beginning",
        ),
        pytest.param(INVOKE, ["lire{'path': '/a'}"], id="invoke"),
        pytest.param('<invoke name="cherche"></invoke>', ["cherche{}"], id="no-parameters"),
        pytest.param(
            INVOKE.replace("<inv", "<antml:inv")
            .replace("</inv", "</antml:inv")
            .replace("<par", "<antml:par")
            .replace("</par", "</antml:par"),
            ["lire{'path': '/a'}"],
            id="prefix",
        ),
        pytest.param(
            f"a <function_calls>\n{INVOKE}\n</function_calls> b",
            ["a ", "lire{'path': '/a'}", " b"],
            id="wrapper",
        ),
        pytest.param(
            f"<function_calls>{INVOKE}\n{INVOKE}</function_calls>",
            ["lire{'path': '/a'}"] * 2,
            id="two-in-a-wrapper",
        ),
        pytest.param(
            f"<antml:function_calls>{INVOKE}</antml:function_calls>",
            ["lire{'path': '/a'}"],
            id="wrapper-with-prefix",
        ),
        pytest.param(
            f"<function_calls>\n{INVOKE}\n",
            ["lire{'path': '/a'}", "\n"],
            id="wrapper-left-open-at-the-end",
        ),
        pytest.param(
            f"<function_calls>{INVOKE} x",
            ["<function_calls>", "lire{'path': '/a'}", " x"],
            id="wrapper-left-open-before-text",
        ),
        pytest.param(
            '<invoke name="lire">\n<parameter name="path"> a\n<b>&lt; </parameter>\n</invoke>',
            ["lire{'path': ' a\\n<b>&lt; '}"],
            id="value-is-taken-as-it-is",
        ),
        pytest.param(
            invoke(lines="3", flags='["a"]'),
            ["lire{'lines': 3, 'flags': ['a']}"],
            id="values-by-schema",
        ),
        pytest.param(
            invoke(lines="x3", flags="[NaN]"),
            ["lire{'lines': 'x3', 'flags': '[NaN]'}"],
            id="values-that-are-no-json",
        ),
        pytest.param(
            invoke(path="3", name="null", any="3", free="1", new="3"),
            ["lire{'path': '3', 'name': 'null', 'any': '3', 'free': 1, 'new': '3'}"],
            id="text-unless-the-schema-wants-something-else",
        ),
        pytest.param(
            f"```\ncode\n```\n{CALL}",
            ["```\ncode\n```\n", "cherche{'q': 'a'}"],
            id="after-a-fence",
        ),
        pytest.param(
            f"```a``` {CALL}",
            ["```a``` ", "cherche{'q': 'a'}"],
            id="code-in-a-line-is-no-fence",
        ),
        pytest.param(
            '[Called cherche with args: {"q":"\\n```\\n"}]\n' + CALL,
            ["cherche{'q': '\\n```\\n'}", "\n", "cherche{'q': 'a'}"],
            id="marks-in-arguments-are-no-fence",
        ),
    ],
)
def test_a_call_in_text_is_taken_out_of_the_text(text: str, expected: list[str]) -> None:
    """Observed: the forms in which models spell calls out."""
    assert shown(find_calls(text, TOOLS)) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"```\n{CALL}\n```", id="in-a-fence"),
        pytest.param(f"  ~~~~py\n{CALL}\n~~~\n{CALL}", id="fence-ends-only-at-its-like"),
        pytest.param(f"> ```\n> {CALL}", id="fence-in-a-quotation-never-closed"),
        pytest.param(f"````\n```\n{INVOKE}\n```\n````", id="fence-in-a-fence"),
        pytest.param(f"```\n``` x\n{CALL}", id="closing-fence-has-no-words"),
        pytest.param(f"`{CALL}`", id="in-backticks"),
        pytest.param("[Called autre with args: {}]", id="unknown-tool"),
        pytest.param('<invoke name="autre"></invoke>', id="unknown-tool-invoked"),
        pytest.param("[Called cherche with args: [1]]", id="list"),
        pytest.param('[Called cherche with args: {"q":}]', id="no-json"),
        pytest.param('[Called cherche with args: {"q":1e999}]', id="number-beyond-floats"),
        pytest.param('[Called cherche with args: {"q":1} x]', id="words-before-the-end"),
        pytest.param('[Called cherche with args: {"q":1', id="cut-off"),
        pytest.param("[Called cherche with args: " + '{"a":' * 100_000, id="too-deep"),
        pytest.param("[Called cherche]", id="no-arguments"),
        pytest.param("[called cherche with args: {}]", id="other-case"),
        pytest.param(
            '<invoke name="lire"><parameter name="path">/a</parameter>', id="invoke-cut-off"
        ),
        pytest.param('<invoke name="lire"><parameter name="path">/a', id="parameter-cut-off"),
        pytest.param(f'<invoke name="lire">x{CLOSED}', id="words-in-an-invoke"),
        pytest.param(
            '<invoke name="lire"><parameter name="a">1</parameter><parameter name="a">2' + CLOSED,
            id="parameter-twice",
        ),
        pytest.param(INVOKE.replace("</invoke>", "</antml:invoke>"), id="prefix-on-one-side-only"),
        pytest.param("<invoke>", id="invoke-without-name"),
        pytest.param("<invoker>", id="another-word"),
        pytest.param("<function_calls></function_calls>", id="empty-wrapper"),
        pytest.param("<function_calls>", id="wrapper-only"),
    ],
)
def test_text_that_is_not_exactly_a_call_stays_text(text: str) -> None:
    """Most such text only describes a call."""
    assert find_calls(text, TOOLS) == [text]


def test_only_fences_before_the_start_count() -> None:
    """Text that was already sent stays text."""
    whole = f"{CALL}{CALL}"
    assert shown(find_calls(whole, TOOLS, len(CALL))) == ["cherche{'q': 'a'}"]
    assert find_calls(f"```\n{CALL}", TOOLS, 4) == [CALL]
    assert find_calls("", TOOLS) == []


def test_after_many_false_beginnings_the_rest_is_text() -> None:
    """Each may read to the end of the text in vain, so there is a limit."""
    false = "<invoke " * MAX_CANDIDATES
    assert find_calls(false + CALL, TOOLS) == [false + CALL]
    assert len(find_calls(false[8:] + CALL, TOOLS)) == 2


def test_repair_of_arguments_in_text_is_marked() -> None:
    """As for arguments that came as events."""
    (call,) = find_calls('[Called cherche with args: {"q":"a\nb"}]', TOOLS)
    assert isinstance(call, ToolUse)
    assert call.is_repaired


@settings(derandomize=True, max_examples=300)
@given(
    st.lists(
        st.sampled_from([CALL, INVOKE, "[Called ", "<invoke ", "```\n", "\n", "x", '"', "}", "]"]),
        max_size=8,
    )
)
def test_the_text_around_calls_is_unchanged(pieces: list[str]) -> None:
    """Exactly the span of a call is taken out, whatever is around it."""
    text = "".join(pieces)
    rest = text
    for segment in find_calls(text, TOOLS):
        if isinstance(segment, str):
            assert rest.startswith(segment)
            rest = rest[len(segment) :]
        else:
            rest = next(rest[len(call) :] for call in (CALL, INVOKE) if rest.startswith(call))
    assert rest == ""


# --- in an answer -------------------------------------------------------------------------


def options(**more: Any) -> dict[str, Any]:
    """The options of a builder that reads calls in text, with ids that can be foreseen."""
    ids = iter(["c1", "c2", "c3"])
    tools = [ToolSpec(name=name, description="", input_schema=TOOLS[name]) for name in TOOLS]
    return {"reads_text_calls": True, "tools": tools, "new_tool_use_id": lambda: next(ids), **more}


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        pytest.param([CALL], ["cherche{'q': 'a'}"], id="alone"),
        pytest.param(["a ", f"{CALL} b"], ["a ", "cherche{'q': 'a'}", " b"], id="text-around"),
        pytest.param(list(f"a[{CALL}]"), ["a[", "cherche{'q': 'a'}", "]"], id="one-by-one"),
        pytest.param(["```\n", CALL, "\n```"], [f"```\n{CALL}\n```"], id="in-a-fence"),
        pytest.param(["a [Cal"], ["a [Cal"], id="half-a-beginning"),
        pytest.param([f"<thinking>{CALL}</thinking>b"], [f"({CALL})", "b"], id="not-in-thinking"),
    ],
)
def test_call_in_text_becomes_a_tool_use_in_its_place(
    deltas: list[str], expected: list[str]
) -> None:
    """The deltas, the last ones included, say what the reply says."""
    given_out, reply = read_all([*map(text, deltas), END], **options())
    assert outline(reply) == expected
    assert said(given_out)[0] == reply.text
    assert said(given_out)[2] == list(reply.tool_uses)
    assert reply.stop_reason == ("tool_use" if reply.tool_uses else "end_turn")


@pytest.mark.parametrize(
    ("data", "more", "expected"),
    [
        pytest.param([text(CALL), END], {"reads_text_calls": False}, [CALL], id="option-off"),
        pytest.param([text(CALL), END], {"tools": []}, [CALL], id="no-tools"),
        pytest.param(
            [text(f"a{CALL}"), tool("t1", stop=True), text("b"), END],
            {},
            [f"a{CALL}", "lire{}", "b"],
            id="native-call-after",
        ),
        pytest.param(
            [tool("t1", stop=True), text(CALL), END], {}, ["lire{}", CALL], id="native-before"
        ),
        pytest.param([text(CALL)], {}, [CALL], id="answer-not-whole"),
        pytest.param([text(CALL), exception("X")], {}, [CALL], id="answer-failed"),
        pytest.param(
            [reasoning(CALL), text("b"), END],
            {"thinking": "inline"},
            [f"<thinking>{CALL}</thinking>\n\nb"],
            id="in-thinking-that-is-shown",
        ),
        pytest.param(
            [text("a[Cal"), reasoning("x"), text(f"led {CALL}"), END],
            {},
            ["a[Cal", "(x)", "led ", "cherche{'q': 'a'}"],
            id="beginning-does-not-go-on-after-thinking",
        ),
        pytest.param(
            [text(f"{CALL}a"), reasoning("x"), text(f"b{INVOKE}"), END],
            {},
            ["cherche{'q': 'a'}", "a", "(x)", "b", "lire{'path': '/a'}"],
            id="thinking-between-two-calls",
        ),
    ],
)
def test_calls_in_text_count_only_in_a_whole_answer_without_native_calls(
    data: list[bytes], more: dict[str, Any], expected: list[str]
) -> None:
    """Only if the option is on, and never in thinking."""
    deltas, reply = read_all(data, **options(**more))
    assert outline(reply) == expected
    assert said(deltas)[0] == reply.text


def test_call_by_a_sent_name_gets_the_callers_name_and_is_checked() -> None:
    """As for tool uses that came as events."""
    data = text('<invoke name="l1"><parameter name="lines">x</parameter></invoke>') + END
    (tool_use,) = read(data, **options(caller_names={"l1": "lire", "x": "unknown"})).tool_uses
    assert (tool_use.id, tool_use.name) == ("c1", "lire")
    assert tool_use.schema_errors == ('arguments.lines: "x" is not of types "null", "integer"',)


def test_a_call_that_is_in_the_text_twice_is_taken_once() -> None:
    """Observed: models that spell a call out do so in both forms."""
    reply = read(text(f"a{CALL}b{CALL}c{INVOKE}") + END, **options())
    assert outline(reply) == ["a", "cherche{'q': 'a'}", "bc", "lire{'path': '/a'}"]
    assert reply.warnings == ("A call of 'cherche' was in the text twice; it was taken once.",)


def test_ids_of_calls_in_text_differ() -> None:
    """The service sent none."""
    more = {"new_tool_use_id": None}
    given = {key: value for key, value in options().items() if key not in more}
    first, second = read(text(f"{CALL}{INVOKE}") + END, **given).tool_uses
    assert first.id != second.id
    assert first.id.startswith("tooluse_")


def test_text_before_a_possible_call_is_not_held_back() -> None:
    """Only what may be a call waits for the end."""
    deltas, _ = read_all([text("a ["), text("b] <"), text(f"c {CALL}")], **options())
    assert [getattr(delta, "text", None) for delta in deltas][:3] == ["a ", "[b] ", "<c "]


@pytest.mark.parametrize("beginning", ["[Called ", "<invoke", "<function_calls>"])
@pytest.mark.parametrize("before", ["", "x", "[ ", "< ", "[<", "<[", "[Calle", "<invok", "<" * 30])
def test_only_a_possible_beginning_of_a_call_is_held_back(before: str, beginning: str) -> None:
    """However the text is cut."""
    for end in range(1, len(beginning)):
        watch = CallWatch()
        assert watch.feed(before + beginning[:end]) == before
        assert not watch.is_holding
        assert watch.feed(beginning[end:]) == ""
        assert watch.is_holding
        assert watch.release() == beginning
