"""Images and files by path are read only in folders that the user has opened."""

import os
import socket
from base64 import b64decode, b64encode
from pathlib import Path

import anyio
import pytest

from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.server.attachments import MAX_FILE_BYTES, read_image, read_text_file
from tests.support.mcp import ask, code, connected, sent, words

PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "open"
    root.mkdir()
    (root / "pixel.png").write_bytes(PIXEL)
    (root / "notes.txt").write_text("grüß", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    return root


async def test_a_file_under_an_open_folder_is_attached_with_its_name(root: Path) -> None:
    part = await read_text_file(str(root / "notes.txt"), [str(root)], "files[0]")
    assert "notes.txt" in part.text
    assert "grüß" in part.text


async def test_an_image_under_an_open_folder_is_sent(root: Path) -> None:
    image = await read_image(str(root / "pixel.png"), [str(root)], "images[0]")
    assert image.format == "png"


async def test_a_path_that_is_too_long_for_any_file_is_refused_at_once(root: Path) -> None:
    """To follow each of its folders would take hours."""
    with pytest.raises(InvalidRequest, match="may not be read"):
        await read_text_file("/a" * 1_000_000, [str(root)], "files[0]")


async def test_by_default_no_path_is_read(root: Path) -> None:
    """Making a model call a tool must not be a way to read the disk."""
    with pytest.raises(InvalidRequest, match="KIRO_MCP_ROOTS"):
        await read_text_file(str(root / "notes.txt"), [], "files[0]")


@pytest.mark.parametrize("given", ["../secret.txt", "link.txt", "linked/secret.txt"])
async def test_no_way_leads_out_of_an_open_folder(given: str, root: Path) -> None:
    """Links are resolved first."""
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "linked").symlink_to(root.parent)
    with pytest.raises(InvalidRequest, match="may not be read"):
        await read_text_file(f"{root}/{given}", [str(root)], "files[0]")


async def test_a_folder_whose_name_only_begins_the_same_is_not_open(root: Path) -> None:
    beside = root.parent / "open2"
    beside.mkdir()
    (beside / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="may not be read"):
        await read_text_file(str(beside / "a.txt"), [str(root)], "files[0]")


async def test_a_relative_path_is_refused(root: Path) -> None:
    """A server is started in any folder."""
    with pytest.raises(InvalidRequest, match="absolute"):
        await read_text_file("notes.txt", [str(root)], "files[0]")


async def test_a_file_that_does_not_exist_is_named(root: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"files\[0\] cannot be read"):
        await read_text_file(str(root / "gone.txt"), [str(root)], "files[0]")


async def test_a_file_that_is_not_text_is_refused(root: Path) -> None:
    with pytest.raises(InvalidRequest, match="UTF-8"):
        await read_text_file(str(root / "pixel.png"), [str(root)], "files[0]")


async def test_a_file_over_the_limit_is_refused(root: Path) -> None:
    (root / "big.txt").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(InvalidRequest, match="larger"):
        await read_text_file(str(root / "big.txt"), [str(root)], "files[0]")


async def test_a_pipe_or_a_device_under_an_open_folder_is_refused_at_once(
    root: Path, emulator: RunningEmulator
) -> None:
    """Opening a pipe waits for its writer: enough such calls would use up every worker thread."""
    os.mkfifo(root / "pipe")
    (root / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        names = ["pipe", "zero", "socket", "."] * 12
        async with connected(emulator, KIRO_MCP_ROOTS=f"{root}:/dev") as client:

            async def refused(name: str) -> None:
                path = str(root / name)
                member = {"images": [path]} if name == "pipe" else {"files": [path]}
                result = await client.call_tool("ask_claude", {"prompt": "x", **member})
                assert code(result) == "invalid_request"
                says = "it is a folder" if name == "." else "it is not a regular file"
                assert says in words(result)

            async with anyio.create_task_group() as tasks:
                for name in names:
                    tasks.start_soon(refused, name)
            answer = await ask(client, prompt="x", files=[str(root / "notes.txt")])
            assert answer["status"] == "completed"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("~nosuchuser/x", "'~nosuchuser/x' (open folders: "),
        ("/{root}/a\0b", "cannot be read: '//"),
        ("/{root}/\ud800", "(no file can have this name)"),
        ("x" * 100_000, "'" + "x" * 80 + "…'"),
    ],
)
@pytest.mark.parametrize("member", ["images", "files"])
async def test_a_path_that_names_nothing_is_an_error_that_quotes_at_most_80_characters(
    given: str, says: str, member: str, root: Path
) -> None:
    async with connected(KIRO_MCP_ROOTS=str(root)) as client:
        arguments = {"prompt": "x", member: [given.format(root=root)]}
        result = await client.call_tool("ask_claude", arguments)
    assert code(result) == "invalid_request"
    assert says in words(result)
    assert len(words(result)) < 600


async def test_one_path_is_read_as_a_list_of_one(root: Path, emulator: RunningEmulator) -> None:
    async with connected(emulator, KIRO_MCP_ROOTS=str(root)) as client:
        await ask(client, prompt="x", files=str(root / "notes.txt"))
    assert "notes.txt" in emulator.state.requests[-1].prompt


async def test_open_folders_are_read_as_people_write_them(
    root: Path, emulator: RunningEmulator
) -> None:
    (root / "with space").mkdir()
    (root / "with space" / "a.txt").write_text("x")
    given = str(root / "with space" / "a.txt")
    quoted = str(root / "with%20space")
    for written in (f'"{root}"', f"'{root}/with space'", f"file://{quoted}"):
        for roots in (written, f"/nowhere:{written}", f"{written}:/nowhere"):
            async with connected(emulator, KIRO_MCP_ROOTS=roots) as client:
                answer = await ask(client, prompt="x", files=[given])
                assert answer["status"] == "completed", roots


async def test_an_open_folder_that_does_not_exist_is_reported(root: Path) -> None:
    async with connected(KIRO_MCP_ROOTS=f"{root}/gone:{root}") as client:
        result = await client.call_tool("ask_claude", {"prompt": "x", "files": ["/etc/hosts"]})
    assert f"(open folders: {root}/gone, which does not exist; {root})" in words(result)


@pytest.mark.parametrize("form", ["plain", "wrapped", "url-safe", "unpadded"])
async def test_large_images_arrive_as_they_were_given_and_stay_so(
    form: str, emulator: RunningEmulator
) -> None:
    """Code that reads each character skips them, also in the store."""
    given = b64encode(PIXEL + bytes(range(256)) * 900 + b"x").decode()
    written = {
        "plain": given,
        "wrapped": "\r\n".join(given[at : at + 76] for at in range(0, len(given), 76)),
        "url-safe": given.replace("+", "-").replace("/", "_"),
        "unpadded": given.rstrip("="),
    }[form]
    async with connected(emulator) as client:
        images = [f"data:image/png;base64,{written}"] * 2
        first = await ask(client, prompt="Grüße. " * 20_000, images=images)
        await ask(client, prompt="And now?", conversation_id=first["conversation_id"])
    history, message = (
        sent(emulator)["conversationState"][name] for name in ("history", "currentMessage")
    )
    image = {"format": "png", "source": {"bytes": given}}
    (before,) = [turn["userInputMessage"] for turn in history if "userInputMessage" in turn]
    assert before["images"] == [image, image]
    assert before["content"].count("Grüße. ") == 20_000
    assert message["userInputMessage"]["content"] == "And now?"
