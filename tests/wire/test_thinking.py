from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.chat import Reply, TextPart, ThinkingDelta, ThinkingPart
from kiro_mcp.wire.thinking import MAX_LEADING_SPACES, Piece, PieceKind, State, ThinkingExtractor
from tests.support.frames import END, chunks, cut, event, reasoning, text, tool
from tests.support.replies import outline, read, read_all, said

# --- between tags -------------------------------------------------------------------------


def extract(*deltas: str) -> tuple[str, str, bool]:
    """Thinking, text, and whether the thinking was left open."""
    extractor = ThinkingExtractor()
    pieces = [piece for delta in deltas for piece in extractor.feed(delta)]
    pieces += extractor.close()
    assert "".join(piece.text for piece in pieces) == "".join(deltas)
    return (
        of_kind(pieces, PieceKind.THINKING),
        of_kind(pieces, PieceKind.TEXT),
        extractor.is_unclosed,
    )


def of_kind(pieces: list[Piece], kind: PieceKind) -> str:
    return "".join(piece.text for piece in pieces if piece.kind is kind)


H1 = "<thinking>\nje compte\n</thinking>\n\nQuatre"

TAGGED = [
    pytest.param([H1], "je compte\n", "Quatre", id="whole"),
    pytest.param(["<thi", "nking>ab</thin", "king>\n", "\nok"], "ab", "ok", id="split-tags"),
    pytest.param(list(H1), "je compte\n", "Quatre", id="single-characters"),
    pytest.param(["\n\n<think>x</think>y"], "x", "y", id="think-after-newlines"),
    pytest.param(["<reasoning>x</reasoning>y"], "x", "y", id="reasoning"),
    pytest.param(["<thought>x</thought>y"], "x", "y", id="thought"),
    pytest.param(["Utilise la balise <thinking> ici"], "", None, id="in-prose"),
    pytest.param(["`<thinking>` est une balise"], "", None, id="quoted"),
    pytest.param(["```\n<thinking>x</thinking>"], "", None, id="in-code"),
    pytest.param(["a\n<thinking>x</thinking>"], "", None, id="after-text"),
    pytest.param(["<thinking></thinking>a"], "", "a", id="empty"),
    pytest.param(["<thinking>\n</thinking>a"], "", "a", id="newline-only"),
    pytest.param(
        ["<thinking>a `</thinking>` b</thinking>c"], "a `</thinking>` b", "c", id="in-backticks"
    ),
    pytest.param(
        ['<thinking>a "</thinking>', '" b</thinking>c'],
        'a "</thinking>" b',
        "c",
        id="in-quotes-split-after-the-tag",
    ),
    pytest.param(
        ["<thinking>a \u201c</thinking>\u201d b</thinking>c"],
        "a \u201c</thinking>\u201d b",
        "c",
        id="in-typographic-quotes",
    ),
    pytest.param(["<thinking>`a`</thinking>b"], "`a`", "b", id="quote-on-one-side-only"),
    pytest.param(["<thinking>`a`</thinking>"], "`a`", "", id="quote-then-end"),
    pytest.param(
        ["<thinking>a<thinking>b</thinking>c</thinking>d"],
        "a<thinking>b",
        "c</thinking>d",
        id="nested-ends-at-the-first-closing-tag",
    ),
    pytest.param(["<thinking>a</think>b</thinking>c"], "a</think>b", "c", id="other-tag"),
    pytest.param(["<thin"], "", None, id="half-a-tag"),
    pytest.param([" \n<"], "", None, id="beginning-of-a-tag"),
    pytest.param([" \n"], "", None, id="white-space-only"),
    pytest.param([""], "", None, id="nothing"),
    pytest.param(["<thinly sliced>"], "", None, id="another-word"),
    pytest.param(["</thinking>a"], "", None, id="closing-tag-only"),
    pytest.param(["<Thinking>a</Thinking>"], "", None, id="other-case"),
    pytest.param(["<thinking>a</thinking>\n\n\nb"], "a", "\nb", id="two-newlines-go"),
    pytest.param(["<thinking>\n\na</thinking> \nb"], "\na", " \nb", id="one-newline-goes"),
    pytest.param(["<thinking>a</thinking>b<think>c</think>"], "a", "b<think>c</think>", id="once"),
    pytest.param(
        [" " * MAX_LEADING_SPACES + "<think>a</think>"], "a", "", id="as-much-space-as-is-held"
    ),
    pytest.param(
        [" " * (MAX_LEADING_SPACES + 1) + "<think>a</think>"],
        "",
        None,
        id="more-space-than-that",
    ),
]


def test_white_space_before_a_tag_is_held_back_up_to_a_limit() -> None:
    """Every buffer has a limit."""
    extractor = ThinkingExtractor()
    assert extractor.feed(" " * MAX_LEADING_SPACES) == []
    assert extractor.feed(" <thi") == [
        Piece(PieceKind.TEXT, " " * (MAX_LEADING_SPACES + 1) + "<thi")
    ]
    assert extractor.state is State.TEXT


@pytest.mark.parametrize(("deltas", "thinking", "answer"), TAGGED)
def test_tagged_thinking_is_separated_from_text_however_it_is_cut(
    deltas: list[str], thinking: str, answer: str | None
) -> None:
    """Observed: answers of models that are asked to think in the prompt."""
    whole = "".join(deltas)
    expected = (thinking, whole if answer is None else answer, False)
    assert extract(*deltas) == expected
    assert extract(*whole) == expected
    for position in range(len(whole) if len(whole) < 100 else 0):
        assert extract(whole[:position], whole[position:]) == expected


@pytest.mark.parametrize(
    ("delta", "thinking"),
    [
        pytest.param("<thinking>jamais fermé", "jamais fermé", id="no-closing-tag"),
        pytest.param("<thinking>a</thin", "a</thin", id="half-a-closing-tag"),
        pytest.param("<thinking>a `</thinking>`", "a `</thinking>`", id="quoted-closing-tag"),
        pytest.param("<thinking>", "", id="nothing-in-it"),
    ],
)
def test_unclosed_thinking_is_marked(delta: str, thinking: str) -> None:
    """It is not shown as the answer."""
    assert extract(delta) == extract(*delta) == (thinking, "", True)


@pytest.mark.parametrize(
    ("deltas", "released"),
    [
        pytest.param(["<thin", "l"], ["", "<thinl"], id="impossible-tag"),
        pytest.param(["a"], ["a"], id="plain-text-at-once"),
        pytest.param([" ", " a"], ["", "  a"], id="white-space-with-what-follows"),
        pytest.param(["<think>a<", "b"], ["a", "<b"], id="only-the-possible-tag-is-held"),
    ],
)
def test_text_is_released_as_soon_as_it_cannot_be_a_tag(
    deltas: list[str], released: list[str]
) -> None:
    """Only a possible tag is held back."""
    extractor = ThinkingExtractor()
    shown = (PieceKind.TEXT, PieceKind.THINKING)
    for delta, expected in zip(deltas, released, strict=True):
        pieces = extractor.feed(delta)
        assert "".join(piece.text for piece in pieces if piece.kind in shown) == expected


SNIPPETS = ["<thinking>", "</thinking>", "<think>", "</think>", "<", "/", "`", '"', "\n", " ", "a"]


@settings(derandomize=True, max_examples=400)
@given(st.lists(st.sampled_from(SNIPPETS), max_size=12), st.lists(st.integers(0, 99), max_size=5))
def test_cuts_make_no_difference_to_what_is_thinking(snippets: list[str], cuts: list[int]) -> None:
    """The extractor's answer depends on the text alone."""
    whole = "".join(snippets)
    assert extract(*cut(whole, cuts)) == extract(whole) == extract(*whole)


# --- as events, and both ------------------------------------------------------------------


def blocks(reply: Reply) -> list[tuple[str, str, str]]:
    return [
        (part.text, part.signature, part.redacted)
        for part in reply.parts
        if isinstance(part, ThinkingPart)
    ]


@pytest.mark.parametrize(
    ("data", "expected", "answer"),
    [
        pytest.param(
            [reasoning("Je "), reasoning("vois"), reasoning(signature="c2ln"), text("ok")],
            [("Je vois", "c2ln", "")],
            "ok",
            id="text-then-signature",
        ),
        pytest.param(
            [reasoning("x"), reasoning(signature="a"), reasoning(signature="b")],
            [("x", "ab", "")],
            "",
            id="signature-in-pieces",
        ),
        pytest.param(
            [reasoning("x", signature="a"), text("ok")],
            [("x", "a", "")],
            "ok",
            id="text-and-signature-in-one",
        ),
        pytest.param(
            [
                reasoning("x"),
                reasoning(signature="s1"),
                tool("t1", stop=True),
                reasoning("y"),
                reasoning(signature="s2"),
            ],
            [("x", "s1", ""), ("y", "s2", "")],
            "",
            id="two-blocks-around-a-tool-use",
        ),
        pytest.param(
            [reasoning("x"), reasoning(signature="s1"), reasoning("y"), reasoning(signature="s2")],
            [("x", "s1", ""), ("y", "s2", "")],
            "",
            id="text-after-a-signature-begins-a-block",
        ),
        pytest.param(
            [reasoning("x"), text("a"), reasoning("y"), text("b")],
            [("x", "", ""), ("y", "", "")],
            "ab",
            id="text-ends-a-block",
        ),
        pytest.param(
            [reasoning("x"), text(""), END, reasoning("y")],
            [("xy", "", "")],
            "",
            id="empty-text-and-figures-do-not",
        ),
        pytest.param(
            [reasoning(redactedContent="cg=="), reasoning(signature="s"), text("ok")],
            [("", "s", "cg==")],
            "ok",
            id="redacted",
        ),
        pytest.param(
            [reasoning("x"), reasoning(redactedContent="YQ=="), reasoning(redactedContent="Yg==")],
            [("x", "", ""), ("", "", "YQ=="), ("", "", "Yg==")],
            "",
            id="redacted-blocks-stand-alone",
        ),
        pytest.param(
            [reasoning(redactedContent="YQ=="), reasoning("x")],
            [("", "", "YQ=="), ("x", "", "")],
            "",
            id="text-after-a-redacted-block",
        ),
        pytest.param(
            [reasoning(signature="blob"), text("ok")],
            [("", "blob", "")],
            "ok",
            id="signature-alone-is-a-block",
        ),
        pytest.param([reasoning("x"), text("ok")], [("x", "", "")], "ok", id="without-signature"),
        pytest.param([reasoning(), text("ok")], [], "ok", id="empty"),
    ],
)
def test_thinking_events_become_blocks_with_their_own_signatures(
    data: list[bytes], expected: list[tuple[str, str, str]], answer: str
) -> None:
    """Observed: text, then one event with the signature; several blocks in one answer."""
    reply = read(b"".join([*data, END]))
    assert blocks(reply) == expected
    assert reply.text == answer


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            [reasoning("je compte"), text(H1)], ["(je compte)", "Quatre"], id="events-then-tags"
        ),
        pytest.param(
            [reasoning("je "), reasoning("compte"), *map(text, H1)],
            ["(je compte)", "Quatre"],
            id="events-then-tags-in-pieces",
        ),
        pytest.param(
            [reasoning("a", signature="s"), reasoning("b"), text("<think>ab</think>c")],
            ["(a)", "(b)", "c"],
            id="tags-around-all-blocks",
        ),
        pytest.param(
            [text("<thinking>ab</thinking>c"), reasoning("ab")],
            ["c", "(ab)"],
            id="tags-then-events",
        ),
        pytest.param(
            [text("<thinking>a"), reasoning("a"), text("b"), reasoning("b"), text("</thinking>c")],
            ["(a)", "(b)", "c"],
            id="interleaved",
        ),
        pytest.param(
            [reasoning("x"), text("<thinking>y</thinking>z")],
            ["(x)", "<thinking>y</thinking>z"],
            id="other-words-are-a-quotation",
        ),
        pytest.param(
            [reasoning("x"), text("\n<thinking>y")],
            ["(x)", "\n<thinking>y"],
            id="unclosed-other-words-are-text",
        ),
        pytest.param(
            [reasoning("x"), text("<thinking>x</thinking>"), text("\n"), tool("t1", stop=True)],
            ["(x)", "lire{}"],
            id="copy-then-tool-use",
        ),
        pytest.param(
            [reasoning("x"), text("<thinking>x</thinking>\n\n"), text("y")],
            ["(x)", "y"],
            id="copy-then-text-in-its-own-delta",
        ),
        pytest.param([reasoning("x"), text("<thi")], ["(x)", "<thi"], id="half-a-tag-is-text"),
    ],
)
def test_thinking_in_tags_and_events_is_neither_repeated_nor_lost(
    data: list[bytes], expected: list[str]
) -> None:
    """Reported by other clients of the service; events win, as they can be sent back."""
    reply = read(b"".join([*data, END]))
    assert outline(reply) == expected


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param("<thinking>p</thinking>", ["(p)", "lire{}"], id="closed"),
        pytest.param("<thinking>p", ["(p)", "lire{}"], id="open"),
        pytest.param("<thinking>p</thi", ["(p</thi)", "lire{}"], id="half-a-closing-tag"),
        pytest.param("<thi", ["<thi", "lire{}"], id="half-an-opening-tag"),
    ],
)
def test_thinking_is_closed_before_a_tool_use(before: str, expected: list[str]) -> None:
    """No tag leaks, and nothing said before a tool use appears after it."""
    deltas, reply = read_all(text(before) + tool("t1") + tool("t1", stop=True) + END)
    assert outline(reply) == expected
    assert said(deltas)[:2] == (reply.text, reply.thinking)


def test_a_block_that_is_open_at_the_end_is_marked_unclosed() -> None:
    """It may be cut off."""
    reply = read(text("<thinking>jamais fermé") + END)
    assert reply.parts == (ThinkingPart(text="jamais fermé", is_unclosed=True),)


# --- what becomes of it -------------------------------------------------------------------

NATIVE = reasoning("je compte", signature="s") + text("Quatre") + END


@pytest.mark.parametrize(
    ("handling", "data", "expected"),
    [
        pytest.param("separate", text(H1) + END, ["(je compte\n)", "Quatre"], id="separate-tags"),
        pytest.param("separate", NATIVE, ["(je compte)", "Quatre"], id="separate-events"),
        pytest.param("remove", text(H1) + END, ["Quatre"], id="remove-tags"),
        pytest.param("remove", NATIVE, ["Quatre"], id="remove-events"),
        pytest.param("inline", text(H1) + END, [H1], id="inline-tags"),
        pytest.param(
            "inline",
            text("<think>a</think>b") + END,
            ["<thinking>a</thinking>b"],
            id="inline-tags-in-one-spelling",
        ),
        pytest.param(
            "inline",
            NATIVE,
            ["<thinking>je compte</thinking>\n\nQuatre"],
            id="inline-events",
        ),
        pytest.param(
            "inline",
            reasoning("a", signature="s")
            + reasoning("b")
            + tool("t1", stop=True)
            + text("c")
            + END,
            ["<thinking>a</thinking>\n\n<thinking>b</thinking>", "lire{}", "c"],
            id="inline-two-blocks-then-tool-use",
        ),
        pytest.param(
            "inline",
            reasoning(redactedContent="YQ==") + text("b") + END,
            ["b"],
            id="inline-redacted",
        ),
        pytest.param("strip_tags", text(H1) + END, ["\nje compte\n\n\nQuatre"], id="strip-tags"),
        pytest.param("strip_tags", NATIVE, ["je compte\n\nQuatre"], id="strip-events"),
    ],
)
def test_thinking_goes_where_the_option_says(
    handling: Any, data: bytes, expected: list[str]
) -> None:
    """Four ways to handle it; deltas and reply say the same in each."""
    deltas, reply = read_all(chunks(data, 7), thinking=handling)
    assert outline(reply) == expected
    assert said(deltas)[:2] == (reply.text, reply.thinking)


def test_removed_thinking_still_counts_as_output() -> None:
    """The model gave it, whether it is shown or not."""
    data = reasoning("x" * 4000) + text("ok") + END
    hidden, shown = read(data, thinking="remove"), read(data)
    assert hidden.parts == (TextPart(text="ok"),)
    assert hidden.usage.output_tokens == pytest.approx(shown.usage.output_tokens, abs=10)


def test_half_characters_are_joined_across_thinking_events() -> None:
    """Observed: escapes may be split between events."""
    halves = [rb'{"text":"a\ud83d"}', rb'{"text":"\ude00b"}', rb'{"text":"c\ud83d"}']
    data = b"".join(event("reasoningContentEvent", half) for half in halves) + text("ok") + END
    deltas, reply = read_all(data)
    assert reply.thinking == "a😀bc\ufffd"
    assert said(deltas)[1] == reply.thinking
    assert all(delta.text.encode() for delta in deltas if isinstance(delta, ThinkingDelta))
