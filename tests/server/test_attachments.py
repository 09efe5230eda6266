"""Images and files by path: only under the folders that the user opened."""

from base64 import b64decode
from pathlib import Path

import pytest

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.server.attachments import MAX_FILE_BYTES, Attachments

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
    """Ours."""
    part = await Attachments([str(root)]).file(str(root / "notes.txt"), "files[0]")
    assert "notes.txt" in part.text
    assert "grüß" in part.text


async def test_an_image_under_an_open_folder_is_sent(root: Path) -> None:
    """Ours."""
    image = await Attachments([str(root)]).image(str(root / "pixel.png"), "images[0]")
    assert image.format == "png"


async def test_by_default_no_path_is_read(root: Path) -> None:
    """Ours: whoever can make a model call a tool must not thereby read the disk."""
    with pytest.raises(InvalidRequest, match="KIRO_MCP_ROOTS"):
        await Attachments([]).file(str(root / "notes.txt"), "files[0]")


@pytest.mark.parametrize("given", ["../secret.txt", "link.txt", "linked/secret.txt"])
async def test_no_way_leads_out_of_an_open_folder(given: str, root: Path) -> None:
    """Ours: links are resolved first."""
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "linked").symlink_to(root.parent)
    with pytest.raises(InvalidRequest, match="may not be read"):
        await Attachments([str(root)]).file(f"{root}/{given}", "files[0]")


async def test_a_folder_whose_name_only_begins_the_same_is_not_open(root: Path) -> None:
    """Ours."""
    beside = root.parent / "open2"
    beside.mkdir()
    (beside / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="may not be read"):
        await Attachments([str(root)]).file(str(beside / "a.txt"), "files[0]")


async def test_a_relative_path_is_refused(root: Path) -> None:
    """Ours: a server is started in any folder."""
    with pytest.raises(InvalidRequest, match="absolute"):
        await Attachments([str(root)]).file("notes.txt", "files[0]")


async def test_a_file_that_is_not_there_is_named(root: Path) -> None:
    """Ours."""
    with pytest.raises(InvalidRequest, match=r"files\[0\] cannot be read"):
        await Attachments([str(root)]).file(str(root / "gone.txt"), "files[0]")


async def test_a_file_that_is_no_text_is_refused(root: Path) -> None:
    """Ours."""
    with pytest.raises(InvalidRequest, match="UTF-8"):
        await Attachments([str(root)]).file(str(root / "pixel.png"), "files[0]")


async def test_a_file_over_the_limit_is_refused(root: Path) -> None:
    """Ours."""
    (root / "big.txt").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(InvalidRequest, match="larger"):
        await Attachments([str(root)]).file(str(root / "big.txt"), "files[0]")
