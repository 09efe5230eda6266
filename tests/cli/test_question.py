"""What a person may type after `kiro-mcp ask`."""

import os
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from kiro_mcp.cli.app import ask
from kiro_mcp.cli.ask import Question, arguments_of, piped_in
from kiro_mcp.errors import InvalidRequest

GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACADs="
ID = "8c0a1f0e-9f57-4d2e-8a43-0b8e6a3d5a11"


@pytest.mark.parametrize(
    ("typed", "words", "continued"),
    [
        (["hi"], ["hi"], None),
        (["what", "is", "MCP?"], ["what", "is", "MCP?"], None),
        (["-c", "and", "then?"], ["and", "then?"], ""),
        (["and", "-c", "then?"], ["and", "then?"], ""),
        (["and then?", "-c"], ["and then?"], ""),
        (["--continue", "and then?"], ["and then?"], ""),
        (["-c", ID, "and then?"], ["and then?"], ID),
        (["and then?", "--continue", ID.upper()], ["and then?"], ID.upper()),
        (["--continue=abc", "and then?"], ["and then?"], "abc"),
        (["--", "-c", ID], ["-c", ID], None),
        (["-"], ["-"], None),
    ],
)
def test_continue_takes_the_next_word_only_if_it_is_an_id(
    typed: list[str], words: list[str], continued: str | None
) -> None:
    """`ask -c "and then?"` is what people type."""
    params = ask.make_context("ask", typed).params
    assert (list(params["words"]), params["continued"]) == (words, continued)


def question(*typed: str) -> Question:
    return Question(**ask.make_context("ask", list(typed)).params)


def arguments(*typed: str, piped: str = "") -> dict[str, Any]:
    return arguments_of(question(*typed), piped, "")


def test_an_image_may_be_a_data_url() -> None:
    """As in the tool."""
    assert arguments("-i", GIF)["images"] == [GIF]


def test_a_file_may_be_a_pipe() -> None:
    """`-f <(git diff)`."""
    ours, theirs = os.pipe()
    os.write(theirs, b"+ a line\n")
    os.close(theirs)
    try:
        prompt = arguments("-f", f"/dev/fd/{ours}", "x")["prompt"]
    finally:
        os.close(ours)
    assert "+ a line" in prompt


def test_a_schema_can_be_given_as_json() -> None:
    assert arguments("x", "--schema", ' {"type": "array"}')["output_schema"] == {"type": "array"}


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["-f", "no such"], "--file cannot be read: 'no such' (No such file or directory)."),
        (["-f", "a\0b"], "--file cannot be read: 'a\\x00b'"),
        (["-f", "/"], "--file cannot be read: '/' (Is a directory)."),
        (["-f", "/dev/zero"], "--file '/dev/zero' is larger than 4194304 bytes."),
        (["-i", __file__], "is not a PNG, JPEG, GIF or WebP image"),
        (["-i", "https://a.example/b.png"], "Download it"),
        (["x", "--schema", "{no"], "--schema cannot be used: '{no' (it is not a JSON object)."),
        (["x", "--schema", "/dev/null"], "(it is not a JSON object)."),
        (["x", "--schema", "no such"], "--schema cannot be read: 'no such'"),
        ([], "Nothing was asked."),
    ],
)
def test_an_invalid_option_is_named_with_the_next_step(typed: list[str], says: str) -> None:
    """The value at fault, and the next step."""
    with pytest.raises(InvalidRequest) as error:
        arguments(*typed)
    assert says in str(error.value)


def test_a_schema_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    """JSON Schema has booleans too; an answer to `true` would need no schema."""
    (tmp_path / "schema.json").write_text("true")
    with pytest.raises(InvalidRequest, match="it is not a JSON object"):
        arguments("x", "--schema", str(tmp_path / "schema.json"))


@pytest.mark.parametrize("name", ["text", "binary"])
def test_a_file_as_standard_input_is_piped_in(name: str, tmp_path: Path) -> None:
    """`< notes.txt`, and not a picture."""
    path = tmp_path / name
    path.write_bytes({"text": "Grüße".encode(), "binary": b"\xff\xfe"}[name])
    with TextIOWrapper(path.open("rb")) as stdin:
        if name == "text":
            assert piped_in(question("x"), stdin) == "Grüße"
        else:
            with pytest.raises(InvalidRequest, match="Standard input is not UTF-8 text"):
                piped_in(question("x"), stdin)


def test_a_device_or_a_closed_standard_input_is_not_read() -> None:
    """`/dev/null`, a terminal, no standard input at all."""
    with TextIOWrapper(Path("/dev/null").open("rb")) as stdin:
        assert piped_in(question("x"), stdin) == ""
    assert piped_in(question("x"), None) == ""
