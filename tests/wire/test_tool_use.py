import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.chat import JsonValue, ToolSpec, ToolUse, ToolUseDelta, ToolUseState
from kiro_mcp.errors import AnswerBroken
from kiro_mcp.wire import events as limits
from kiro_mcp.wire.arguments import parse_arguments
from kiro_mcp.wire.events import ToolUseFragment
from kiro_mcp.wire.schema_check import (
    MAX_SCHEMA_ERRORS,
    MAX_SENTENCE_CHARACTERS,
    SchemaCheck,
    UnusableSchemaError,
)
from kiro_mcp.wire.tool_use import ToolUseAssembler
from tests.support.frames import END, chunks, cut, event, metadata, reasoning, text, tool
from tests.support.replies import outline, read, read_all, said

START, STOP = tool("t1"), tool("t1", stop=True)


def only(data: bytes, **options: Any) -> ToolUse:
    """The one tool use of an answer."""
    (tool_use,) = read(data, **options).tool_uses
    return tool_use


# --- what is complete ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "arguments"),
    [
        pytest.param(
            [tool("t1", input='{"ch'), tool("t1", input='emin": "/a"}'), STOP],
            {"chemin": "/a"},
            id="fragments",
        ),
        pytest.param([tool("t1", input='{"n":1}'), STOP], {"n": 1}, id="input-in-first-frame"),
        pytest.param([tool("t1", input='{"n":1}', stop=True)], {"n": 1}, id="all-in-one-frame"),
        pytest.param([START, STOP], {}, id="no-input"),
        pytest.param([START, tool("t1", input=" \n"), STOP], {}, id="blank-input"),
        pytest.param([tool("t1", input="")], {}, id="one-frame-without-stop"),
        pytest.param([START], {}, id="one-frame-without-input"),
        pytest.param([START, tool("t1", input='{"a":1}')], {"a": 1}, id="whole-without-stop"),
        pytest.param([tool("t1", input={"p": 2}), STOP], {"p": 2}, id="object"),
        pytest.param(
            [tool("t1", input={}), tool("t1", input='{"p":2}'), STOP],
            {"p": 2},
            id="placeholder-then-fragments",
        ),
        pytest.param(
            [tool("t1", input="{}"), tool("t1", input='{"p"'), tool("t1", input=":2}"), STOP],
            {"p": 2},
            id="placeholder-as-text-then-fragments",
        ),
        pytest.param(
            [tool("t1", input={"p": 2}), tool("t1", input={}), STOP],
            {"p": 2},
            id="object-then-placeholder",
        ),
        pytest.param(
            [tool("t1", input={"a": 1}), tool("t1", input={"a": 1, "b": 2}), STOP],
            {"a": 1, "b": 2},
            id="objects-that-grow",
        ),
        pytest.param(
            [tool("t1", input='{"a'), tool("t1", input={"a": 1}, stop=True)],
            {"a": 1},
            id="object-in-the-last-frame",
        ),
        pytest.param(
            [tool("t1", input={"a": 1}), tool("t1", input='{"a":'), tool("t1", input="2}"), STOP],
            {"a": 2},
            id="text-after-an-object-takes-its-place",
        ),
        pytest.param(
            [tool("t1", input='{"q":"v"}'), tool("t1", input='{"q":"v"}', stop=True)],
            {"q": "v"},
            id="whole-input-repeated-in-last-frame",
        ),
        pytest.param(
            [tool("t1", input='{"q":"v"}\n'), tool("t1", input='\n{"q":"w"} ', stop=True)],
            {"q": "w"},
            id="later-snapshot-wins",
        ),
        pytest.param(
            [
                tool("t1", input='{"a":"\\'),
                tool("t1", input='"\\u00'),
                tool("t1", input='e9"}'),
                STOP,
            ],
            {"a": '"é'},
            id="cuts-inside-escapes",
        ),
        pytest.param(
            [tool("t1", input='{"a":"\\ud83d'), tool("t1", input='\\ude00"}'), STOP],
            {"a": "😀"},
            id="cut-between-surrogate-escapes",
        ),
        pytest.param(
            [
                event(
                    "toolUseEvent", rb'{"name":"lire","toolUseId":"t1","input":"{\"a\":\"\ud83d"}'
                ),
                event("toolUseEvent", rb'{"name":"lire","toolUseId":"t1","input":"\ude00\"}"}'),
                STOP,
            ],
            {"a": "😀"},
            id="half-characters-in-two-events",
        ),
        pytest.param(
            [tool("t1", input='{"a":"\\ud83d","\\ude00":1}'), STOP],
            {"a": "\ufffd", "\ufffd": 1},
            id="lone-halves-are-replaced",
        ),
        pytest.param([tool("t1", input='{"a":"漢字"}'), STOP], {"a": "漢字"}, id="raw-cjk"),
        pytest.param(
            [tool("t1", input='{"a":' * 170 + "{}" + "}" * 170), STOP],
            json.loads('{"a":' * 170 + "{}" + "}" * 170),
            id="deep",
        ),
        pytest.param(
            [START, STOP, tool("t1", input='{"a":1}'), STOP],
            {},
            id="late-fragments-change-nothing",
        ),
    ],
)
def test_fragments_make_one_complete_tool_use(data: list[bytes], arguments: object) -> None:
    """Observed: fragments cut anywhere. Objects and repetitions: other clients meet them."""
    whole = b"".join([*data, END])
    deltas, reply = read_all(whole)
    assert reply.tool_uses == (ToolUse(id="t1", name="lire", arguments=only(whole).arguments),)
    assert only(whole).arguments == arguments
    assert (reply.stop_reason, reply.truncated) == ("tool_use", False)
    assert said(deltas)[2] == list(reply.tool_uses)
    assert read(chunks(whole, 1)) == reply


def test_argument_of_40_kilobytes_in_700_fragments_is_complete() -> None:
    """The size at which the service has been seen to break off."""
    content = "".join(f"{number:09}\n" for number in range(4_000))
    fragments = chunks(json.dumps({"a": content}), 60)
    data = b"".join([START, *(tool("t1", input=fragment) for fragment in fragments), STOP, END])
    assert only(data).arguments == {"a": content}


# --- which is which -----------------------------------------------------------------------


def test_interleaved_tool_uses_keep_their_own_input_and_place() -> None:
    """Keyed by id; the order is that in which they began."""
    data = [
        *(tool("t1", "lire"), tool("t2", "écrire"), tool("t1", "lire", input='{"a"')),
        *(tool("t2", "écrire", input='{"b":2}'), tool("t2", "écrire", stop=True)),
        *(tool("t1", "lire", input=":1}"), tool("t1", "lire", stop=True)),
    ]
    deltas, reply = read_all(b"".join([*data, END]))
    assert outline(reply) == ["lire{'a': 1}", "écrire{'b': 2}"]
    assert [tool_use.id for tool_use in said(deltas)[2]] == ["t2", "t1"]


def test_identical_calls_with_different_ids_stay_two() -> None:
    """Only the id tells tool uses apart."""
    data = b"".join(tool(name, input='{"a":1}', stop=True) for name in ("t1", "t2"))
    assert outline(read(data + END)) == ["lire{'a': 1}", "lire{'a': 1}"]


def test_a_repeated_tool_use_is_taken_once_with_a_warning() -> None:
    """The same id again after its last fragment."""
    once = START + tool("t1", input='{"a":1}') + STOP
    reply = read(once + once + END)
    assert outline(reply) == ["lire{'a': 1}"]
    assert reply.warnings == ("3 fragment(s) of tool uses that had ended were left out.",)


def test_another_call_with_the_same_id_is_kept_under_a_new_one() -> None:
    """Not observed: other models' services give parallel calls one id. No call is lost."""
    calls = [START + tool("t1", input=f'{{"a":{number}}}') + STOP for number in (1, 2, 1, 3)]
    reply = read(b"".join(calls) + END)
    assert outline(reply) == ["lire{'a': 1}", "lire{'a': 2}", "lire{'a': 3}"]
    ids = [use.id for use in reply.tool_uses]
    assert ids[0] == "t1"
    assert len(set(ids)) == 3
    assert "Two different tool uses came with the id 't1'" in reply.warnings[0]
    assert "3 fragment(s) of tool uses that had ended were left out." in reply.warnings


@pytest.mark.parametrize("is_open", [True, False])
def test_the_new_id_of_another_call_is_not_one_that_the_answer_has(is_open: bool) -> None:
    """Else the call that has it would be lost."""
    taken = [tool("t1_2", input='{"a"'), tool("t1_2", input=":0}", stop=True)]
    calls = [START + tool("t1", input=f'{{"a":{number}}}') + STOP for number in (1, 2)]
    data = [taken[0], *calls, taken[1]] if is_open else [*taken, *calls]
    reply = read(b"".join([*data, END]))
    assert outline(reply) == ["lire{'a': 0}", "lire{'a': 1}", "lire{'a': 2}"]
    assert len({use.id for use in reply.tool_uses}) == 3


def test_a_fragment_without_an_id_gives_a_warning() -> None:
    """Nothing says what it belongs to."""
    stray = event("toolUseEvent", {"name": "lire", "input": "x"})
    reply = read(START + stray + tool("t1", input='{"a":1}') + STOP + END)
    assert outline(reply) == ["lire{'a': 1}"]
    assert reply.warnings == ("An event 'toolUseEvent' was left out: it has no id of a tool use.",)


def test_name_may_come_after_the_first_fragment() -> None:
    """A missing name is an empty one."""
    assert only(tool("t1", "") + tool("t1", "lire", stop=True) + END).name == "lire"


def test_a_tool_use_without_a_name_is_left_out_with_a_warning() -> None:
    """Reported by other clients of the service."""
    reply = read(text("a") + tool("t1", "") + text("b") + tool("t1", "", stop=True) + END)
    assert outline(reply) == ["ab"]
    assert reply.stop_reason == "end_turn"
    assert reply.warnings == ("The tool use 't1' has no tool name and was left out.",)


def test_a_sent_name_becomes_the_callers_name() -> None:
    """Long names are sent shortened."""
    names = {"n_ab12": "un nom très long"}
    assert only(tool("t1", "n_ab12", stop=True) + END, caller_names=names).name == names["n_ab12"]
    assert only(tool("t1", "other", stop=True) + END, caller_names=names).name == "other"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            [text("before"), START, STOP, text("after")],
            ["before", "lire{}", "after"],
            id="text-around",
        ),
        pytest.param(
            [text("before"), START, text("dur"), STOP, text("ing")],
            ["before", "lire{}", "during"],
            id="text-inside",
        ),
        pytest.param(
            [reasoning("x"), START, reasoning("y"), STOP, text("z")],
            ["(x)", "lire{}", "(y)", "z"],
            id="thinking-around",
        ),
    ],
)
def test_tool_use_stands_where_it_began(data: list[bytes], expected: list[str]) -> None:
    """The order in which the model said things is part of the answer."""
    assert outline(read(b"".join([*data, END]))) == expected


# --- what is not complete -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        pytest.param('{"a":' * 100_000, "truncated", id="cut-off"),
        pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, "invalid", id="whole"),
        pytest.param('{"a":' * 100_000 + "1" + ",}" * 100_000, "invalid", id="to-be-mended"),
    ],
)
def test_arguments_that_nest_too_deeply_are_kept_as_text(raw: str, state: str) -> None:
    """The answer is not lost."""
    tool_use = only(tool("t1", input=raw, stop=True) + END)
    assert (tool_use.state, tool_use.arguments) == (state, {})
    assert tool_use.raw == raw


@pytest.mark.parametrize(("levels", "state"), [(180, "complete"), (181, "invalid")])
def test_arguments_nest_no_deeper_than_clients_read(levels: int, state: str) -> None:
    """They read 200 levels, and the result around the arguments needs some."""
    raw = '{"a":' * (levels - 1) + "{}" + "}" * (levels - 1)
    assert only(tool("t1", input=raw, stop=True) + END).state == state


FULL = {"contextUsagePercentage": 100}
LONG = '{"path":"/a","content":"abc'


@pytest.mark.parametrize(
    ("data", "state", "raw"),
    [
        pytest.param([tool("t1", input="")], "truncated", "", id="nothing-says-it-is-whole"),
        pytest.param(
            [tool("t1", input='{"a":1}')], "truncated", '{"a":1}', id="whole-but-nothing-says-so"
        ),
        pytest.param(
            [tool("t1", input={"a": "é"})], "truncated", '{"a": "é"}', id="object-that-may-grow"
        ),
        pytest.param(
            [tool("t1", input={"a": 1}), tool("t1", input='{"b"'), STOP, END],
            "truncated",
            '{"b"',
            id="text-after-an-object-is-cut-off",
        ),
        pytest.param(
            [START, metadata(stopReason="MAX_TOKENS"), END],
            "truncated",
            "",
            id="nothing-because-the-answer-was-too-long",
        ),
        pytest.param(
            [tool("t1", input='{"a":1}'), event("contextUsageEvent", FULL)],
            "truncated",
            '{"a":1}',
            id="whole-but-the-window-was-full",
        ),
        pytest.param([tool("t1", input=LONG)], "truncated", LONG, id="cut-off"),
        pytest.param([tool("t1", input=LONG), END], "truncated", LONG, id="cut-off-at-its-end"),
        pytest.param([tool("t1", input=LONG), STOP, END], "truncated", LONG, id="yet-stopped"),
        pytest.param(
            [tool("t1", input='{"a":[1,{"b":2'), STOP, END],
            "truncated",
            '{"a":[1,{"b":2',
            id="open-brackets",
        ),
        pytest.param(
            [tool("t1", input='{"a":1}'), tool("t1", input='{"a":1', stop=True), END],
            "truncated",
            '{"a":1}{"a":1',
            id="cut-off-snapshot",
        ),
        pytest.param([tool("t1", input="[1,2]"), STOP, END], "invalid", "[1,2]", id="list"),
        pytest.param([tool("t1", input=[1, 2]), STOP, END], "invalid", "[1, 2]", id="as-list"),
        pytest.param([tool("t1", input='"a'), STOP, END], "invalid", '"a', id="half-a-string"),
        pytest.param([tool("t1", input="nul"), STOP, END], "invalid", "nul", id="half-a-word"),
        pytest.param(
            [tool("t1", input='{"a":NaN}'), STOP, END], "invalid", '{"a":NaN}', id="no-number"
        ),
        pytest.param(
            [tool("t1", input='{"a":1e999}'), STOP, END],
            "invalid",
            '{"a":1e999}',
            id="number-beyond-floats",
        ),
        pytest.param(
            [tool("t1", input='{"a":1}{"a":2}'), STOP, END],
            "invalid",
            '{"a":1}{"a":2}',
            id="two-objects-in-one-fragment",
        ),
        pytest.param(
            [tool("t1", input='{"a":1}'), tool("t1", input="[2]"), STOP, END],
            "invalid",
            '{"a":1}[2]',
            id="list-after-object",
        ),
        pytest.param(
            [tool("t1", input='{"a":]}'), STOP, END], "invalid", '{"a":]}', id="wrong-bracket"
        ),
        pytest.param(
            [tool("t1", input='{"a":1}}'), STOP, END], "invalid", '{"a":1}}', id="one-too-many"
        ),
        pytest.param(
            [tool("t1", input='{"a":1} trailing'), STOP, END],
            "invalid",
            '{"a":1} trailing',
            id="words-after-it",
        ),
    ],
)
def test_arguments_that_are_not_whole_are_never_reported_complete(
    data: list[bytes], state: ToolUseState, raw: str
) -> None:
    """A tool that runs with half of its arguments does harm."""
    reply = read(b"".join(data))
    assert reply.tool_uses == (ToolUse(id="t1", name="lire", arguments={}, state=state, raw=raw),)
    assert reply.truncated is (state == "truncated")


@pytest.mark.parametrize(
    ("fragments", "arguments"),
    [
        pytest.param(['{"a":1,}'], {"a": 1}, id="comma-in-object"),
        pytest.param(['{"a":[1,2 ,\n],}'], {"a": [1, 2]}, id="comma-in-list"),
        pytest.param(['{"a":"x\n\ty"}'], {"a": "x\n\ty"}, id="raw-control-characters"),
        pytest.param(['{"a":"x\ny, }",}'], {"a": "x\ny, }"}, id="both-and-a-comma-in-a-string"),
        pytest.param(['{"a":"\\",}"', ",}"], {"a": '",}'}, id="escaped-quote"),
    ],
)
def test_repair_loses_nothing_and_is_marked(fragments: list[str], arguments: object) -> None:
    """Raw control characters in strings and trailing commas are what models get wrong."""
    tool_use = only(b"".join(tool("t1", input=each) for each in fragments) + STOP + END)
    assert (tool_use.arguments, tool_use.is_repaired, tool_use.state) == (
        arguments,
        True,
        "complete",
    )


@pytest.mark.parametrize("broken", ["{,}", '{"a":[,]}', '{"a":1,,}', '{"a":1,"b"}', '{"a":,}'])
def test_arguments_that_need_a_guess_are_invalid(broken: str) -> None:
    """Only lossless repairs."""
    assert parse_arguments([broken]).state == "invalid"


@settings(derandomize=True, max_examples=300)
@given(
    st.dictionaries(
        st.text(max_size=4), st.text(max_size=6) | st.integers() | st.none(), max_size=4
    ),
    st.data(),
)
def test_cut_off_arguments_are_truncated_at_every_length(
    arguments: dict[str, Any], data: st.DataObject
) -> None:
    """No beginning of an object is ever taken for the whole of one."""
    whole = json.dumps(arguments)
    length = data.draw(st.integers(1, len(whole) - 1))
    assert parse_arguments([whole[:length]]).state == "truncated"


@settings(derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.lists(st.integers(0, 999), max_size=6),
    st.booleans(),
)
def test_arguments_survive_any_cut(value: Any, positions: list[int], is_ascii: bool) -> None:
    """Fragments may be cut anywhere, inside escapes too."""
    arguments = {"value": value}
    fragments = cut(json.dumps(arguments, ensure_ascii=is_ascii), positions)
    assert parse_arguments(fragments).value == arguments


@settings(derandomize=True, max_examples=300)
@given(
    st.lists(st.sampled_from(['{"a":', "1", '"', "\\", "}", "{}", "[", "]", ",", "\n"]), max_size=9)
)
def test_any_fragments_end_in_one_of_three_states(fragments: list[str]) -> None:
    """Reading arguments never raises, and has a value exactly where it is complete."""
    arguments = parse_arguments(fragments)
    assert (arguments.value is not None) is (arguments.state == "complete")


# --- the caller's schema ------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "lines": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["path"],
}


def spec(schema: Any, name: str = "lire") -> ToolSpec:
    return ToolSpec(name=name, description="", input_schema=schema)


@pytest.mark.parametrize(
    ("arguments", "errors"),
    [
        pytest.param('{"path":"/a"}', (), id="valid"),
        pytest.param("", ('arguments: "path" is a required property',), id="missing"),
        pytest.param(
            '{"path":1,"lines":["a"]}',
            (
                'arguments.path: 1 is not of type "string"',
                'arguments.lines[0]: "a" is not of type "integer"',
            ),
            id="wrong-types",
        ),
        pytest.param('{"path":"/a",}', (), id="repaired"),
    ],
)
def test_arguments_are_checked_against_the_callers_schema(
    arguments: str, errors: tuple[str, ...]
) -> None:
    """A complete tool use says where it breaks its tool's schema."""
    data = tool("t1", "sent", input=arguments, stop=True) + END
    tool_use = only(data, tools=[spec(SCHEMA)], caller_names={"sent": "lire"})
    assert tool_use.state == "complete"
    assert tool_use.schema_errors == errors


def test_the_first_schema_of_a_repeated_tool_counts() -> None:
    """The model has seen only the first."""
    tools = [spec(SCHEMA), spec({"required": ["autre"]})]
    assert only(tool("t1", input='{"path":"/a"}') + STOP + END, tools=tools).schema_errors == ()


def test_tool_without_schema_and_incomplete_tool_use_are_not_checked() -> None:
    """There is nothing to check, or nothing to check it against."""
    assert only(tool("t1", "autre", stop=True) + END, tools=[spec(SCHEMA)]).schema_errors == ()
    assert only(tool("t1", input="{") + STOP + END, tools=[spec(SCHEMA)]).schema_errors == ()


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "no such type"}, id="unknown-type"),
        pytest.param({"properties": 5}, id="properties-no-object"),
        pytest.param({"$ref": "#/nowhere"}, id="refers-to-nothing"),
    ],
)
def test_an_unusable_schema_gives_one_warning(schema: Any) -> None:
    """It is not the model's mistake, and nothing is fetched."""
    twice = b"".join(tool(name, input='{"a":"x"}', stop=True) for name in ("t1", "t2"))
    reply = read(twice + END, tools=[spec(schema)])
    assert [tool_use.schema_errors for tool_use in reply.tool_uses] == [(), ()]
    (warning,) = reply.warnings
    assert warning.startswith("The schema of 'lire' is not checked: ")


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"properties": {"a": {"pattern": "("}}}, id="bad-pattern"),
        pytest.param({"$ref": "#"}, id="refers-to-itself"),
        pytest.param({"$ref": "http://127.0.0.1:9/schema"}, id="refers-to-the-network"),
    ],
)
def test_a_slow_check_is_left_to_the_caller(schema: Any) -> None:
    """All other calls would wait."""
    (tool_use,) = read(
        tool("t1", input='{"a":"x"}', stop=True) + END, tools=[spec(schema)]
    ).tool_uses
    assert tool_use.is_unchecked
    assert not tool_use.schema_errors


def test_schema_errors_are_few_and_short() -> None:
    """People and models read them."""
    check = SchemaCheck({"properties": {"a": {"items": {"type": "integer"}}}})
    wrong: list[JsonValue] = ["x" * 400] * 25
    errors = check.errors({"a": wrong}) or ()
    assert len(errors) == MAX_SCHEMA_ERRORS
    assert {len(error) for error in errors} == {MAX_SENTENCE_CHARACTERS}
    with pytest.raises(UnusableSchemaError):
        SchemaCheck({"type": 5})


# --- limits -------------------------------------------------------------------------------


def test_more_tool_uses_than_are_kept_end_the_answer_with_those_before() -> None:
    """Every buffer has a limit."""
    many = range(limits.MAX_TOOL_USES + 1)
    reply = read(b"".join(tool(f"t{number}", stop=True) for number in many) + END)
    assert len(reply.tool_uses) == limits.MAX_TOOL_USES
    assert reply.truncation_reason == (
        f"The answer was cut off, because it has more than {limits.MAX_TOOL_USES} tool uses."
    )


def test_more_input_than_is_kept_ends_the_answer_with_what_came_before() -> None:
    """The limit is for all tool uses of an answer together."""
    half = limits.MAX_INPUT_CHARACTERS // 2
    reply = read(
        tool("t1", input='{"a":1}', stop=True)
        + b"".join(tool("t2", input="x" * (half // 4)) for _ in range(8))
        + END
    )
    assert [tool_use.state for tool_use in reply.tool_uses] == ["complete", "truncated"]
    assert "characters of tool input" in reply.truncation_reason


def test_snapshots_count_once_towards_the_limit() -> None:
    """Each replaces the one before."""
    assembler = ToolUseAssembler({}, {}, {}, str)
    snapshot = json.dumps({"a": "x" * (limits.MAX_INPUT_CHARACTERS // 4)})
    for _ in range(5):
        assembler.add(ToolUseFragment("t1", "lire", snapshot, is_snapshot=True))
    for _ in range(2):
        assembler.add(ToolUseFragment("t2", "lire", snapshot))
    with pytest.raises(AnswerBroken):
        assembler.add(ToolUseFragment("t2", "lire", snapshot))
    assert [tool_use.state for tool_use in assembler.close(is_answer_whole=False)] == [
        "truncated",
        "truncated",
    ]


def test_every_delta_of_a_tool_use_encodes_to_utf8() -> None:
    """Half characters are joined or replaced everywhere."""
    payload = rb'{"name":"l\ud83d","toolUseId":"t\ude00","input":"{\"\ud83d","stop":true}'
    (delta,), reply = read_all(event("toolUseEvent", payload) + metadata(stopReason="END_TURN"))
    assert isinstance(delta, ToolUseDelta)
    assert repr(reply).encode()
    assert (delta.tool_use.name, delta.tool_use.raw) == ("l\ufffd", '{"\ufffd')
