"""A renewed login in another program's store: compared, merged, or left alone."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kiro_mcp.auth.credentials import Credential
from kiro_mcp.auth.refresh import can_write_back, write_back
from kiro_mcp.files import MAX_TEXT_BYTES, read_text, replace_text
from tests.support.logins import idc_credential, kiro_cli_database, odic_rows, row_of, write_json

KEY = "kirocli:odic:token"


def renewed(path: Path, origin: str) -> Credential:
    return replace(
        idc_credential(),
        access_token="new-access",
        refresh_token="new-refresh",
        held_refresh_token="spent",
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        region="changed",
        scopes=("changed",),
        path=str(path),
        key=KEY,
        origin=origin,  # pyright: ignore[reportArgumentType]  # one of its words
    )


def test_a_row_that_was_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """Its owner was there first, and its token is the newer one."""
    path = kiro_cli_database(tmp_path / "a.sqlite3", odic_rows(refresh_token="theirs"))
    assert not write_back(renewed(path, "database"))
    assert row_of(path, KEY)["refresh_token"] == "theirs"


@pytest.mark.parametrize("rows", [{}, {KEY: "null"}, {KEY: "{"}])
def test_a_row_that_is_gone_is_not_made_anew(rows: dict[str, object], tmp_path: Path) -> None:
    """Who has signed out there stays so."""
    path = kiro_cli_database(tmp_path / "a.sqlite3", rows)
    assert not write_back(renewed(path, "database"))
    with closing(sqlite3.connect(path)) as database:
        found = dict(database.execute("SELECT key, value FROM auth_kv").fetchall())
    assert found == rows


def test_only_tokens_and_their_end_change_in_a_row(tmp_path: Path) -> None:
    """Observed: a region or scopes that are overwritten end the owner's login."""
    before = odic_rows(refresh_token="spent", unknown={"a": [1]})
    path = kiro_cli_database(tmp_path / "a.sqlite3", before)
    assert write_back(renewed(path, "database"))
    row = row_of(path, KEY)
    assert row.pop("access_token") == "new-access"
    assert row.pop("refresh_token") == "new-refresh"
    assert row.pop("expires_at") == "2030-01-01T00:00:00.000Z"
    kept = before[KEY]
    assert isinstance(kept, dict)
    assert row == {name: kept[name] for name in row}  # pyright: ignore[reportUnknownVariableType]  # JSON
    assert row["unknown"] == {"a": [1]}


def test_a_file_that_was_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """As in a database."""
    path = write_json(tmp_path / "a.json", {"refreshToken": "theirs"})
    assert not write_back(renewed(path, "file"))
    assert json.loads(path.read_text("utf-8")) == {"refreshToken": "theirs"}
    path.write_text("{", "utf-8")
    with pytest.raises(OSError):  # noqa: PT011  # its words are the parser's
        write_back(renewed(path, "file"))


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    """Dot files are often links into a repository."""
    target = write_json(tmp_path / "real" / "a.json", {"refreshToken": "spent"})
    link = tmp_path / "link.json"
    link.symlink_to(target)
    assert can_write_back(renewed(link, "file"))
    assert write_back(renewed(link, "file"))
    assert link.is_symlink()
    assert json.loads(target.read_text("utf-8"))["refreshToken"] == "new-refresh"


def test_what_is_not_there_or_no_database_cannot_be_written_back(tmp_path: Path) -> None:
    assert not can_write_back(renewed(tmp_path / "none" / "a.json", "file"))
    path = tmp_path / "a.sqlite3"
    assert not can_write_back(renewed(path, "database"))
    path.write_text("no database", "utf-8")
    assert not can_write_back(renewed(path, "database"))
    path.unlink()
    kiro_cli_database(path, odic_rows())
    assert can_write_back(renewed(path, "database"))


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """Whole or not at all."""
    folder = tmp_path / "a"
    (folder / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        replace_text(folder / "in the way", "new")
    assert [path.name for path in folder.iterdir()] == ["in the way"]


def test_a_file_that_is_too_large_for_a_login_is_not_read_whole(tmp_path: Path) -> None:
    """A path may lead anywhere."""
    path = tmp_path / "large"
    path.write_bytes(b"x" * MAX_TEXT_BYTES)
    assert len(read_text(path)) == MAX_TEXT_BYTES
    path.write_bytes(b"x" * (MAX_TEXT_BYTES + 1))
    with pytest.raises(ValueError, match="larger"):
        read_text(path)
