"""Names of tools, and back."""

import pytest

from kiro_mcp.wire.tools import LEGAL_NAME, sent_names


@pytest.mark.parametrize("name", ["a", "read_log", "mcp__server__tool", "X-1", "n" * 64])
def test_legal_names_are_sent_as_they_are(name: str) -> None:
    """The pattern of the service's official client; double underscores mean something."""
    assert sent_names([name]) == {name: name}


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("my.tool", "my_tool"),
        ("a/b c", "a_b_c"),
        ("9lives", "t_9lives"),
        ("_private", "t__private"),
        ("", "t_"),
        ("天气", "t___"),
        ("é" * 3, "t____"),
        ("a." + "n" * 62, "a_" + "n" * 62),
        ("9" * 62, "t_" + "9" * 62),
    ],
)
def test_illegal_names_are_changed_as_little_as_can_be(name: str, sent: str) -> None:
    """The model reads names."""
    assert sent_names([name]) == {name: sent}


@pytest.mark.parametrize("name", ["n" * 65, "server." + "n" * 200, "9" * 64])
def test_long_names_are_cut_and_told_apart_by_a_hash(name: str) -> None:
    """The pattern of the service's official client: 64 characters."""
    sent = sent_names([name])[name]
    assert len(sent) == 64
    assert LEGAL_NAME.fullmatch(sent)
    assert sent != sent_names([name + "x"])[name + "x"]


def test_no_two_names_are_sent_as_one() -> None:
    """The answer must lead back to one tool."""
    names = ["my.tool", "my/tool", "my_tool", "my tool", "n" * 70, "n" * 71, "my.tool"]
    sent = sent_names(names)
    assert len(set(sent.values())) == len(sent) == 6
    assert sent["my_tool"] == "my_tool"
    assert all(LEGAL_NAME.fullmatch(name) for name in sent.values())
    back = {other: name for name, other in sent.items()}
    assert {back[sent_name] for sent_name in sent.values()} == set(names)


def test_a_tool_added_at_the_end_changes_no_other() -> None:
    """The service's prompt cache holds only for identical prefixes."""
    names = ["my.tool", "my/tool", "n" * 70]
    before = sent_names(names)
    assert {**before, **sent_names([*names, "another.tool"])} == sent_names(
        [*names, "another.tool"]
    )
    assert all(sent_names([*names, "x.y"])[name] == sent for name, sent in before.items())
