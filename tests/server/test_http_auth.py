"""The token over HTTP: where it comes from, where it is stored, and whom it lets in."""

import os
import stat
from pathlib import Path

import pytest
from anyio import fail_after

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.server.http import Transport
from kiro_mcp.server.http_gate import Token, choose_token
from tests.support.http import TOKEN, serving_http

TEST_SECONDS = 20


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}"},
        {"X-Api-Key": TOKEN},
        {"Authorization": "Bearer of something else", "X-Api-Key": TOKEN},
    ],
    ids=["bearer", "any-case", "x-api-key", "either"],
)
async def test_the_token_lets_in_as_a_bearer_and_as_x_api_key(headers: dict[str, str]) -> None:
    """RFC 6750; and the header that clients of other gateways send."""
    with fail_after(TEST_SECONDS):
        async with serving_http(token=TOKEN) as server:
            assert (await server.post_modern("tools/list", headers=headers)).status_code == 200


@pytest.mark.parametrize("transport", ["http", "sse"])
@pytest.mark.parametrize(
    ("headers", "is_wrong"),
    [
        ({}, False),
        ({"Authorization": f"Basic {TOKEN}"}, False),
        ({"Authorization": "Bearer"}, True),
        ({"Authorization": f"Bearer {TOKEN}x"}, True),
        ({"X-Api-Key": TOKEN[:-1]}, True),
    ],
    ids=["none", "basic", "empty", "longer", "shorter"],
)
async def test_without_the_token_nobody_is_let_in(
    headers: dict[str, str], is_wrong: bool, transport: Transport
) -> None:
    """RFC 6750: 401 and a challenge, with an error code only where a token was sent."""
    with fail_after(TEST_SECONDS):
        async with serving_http(token=TOKEN, transport=transport) as server:
            response = await server.post_modern("tools/list", headers=headers)
            assert response.status_code == 401
            challenge = response.headers["www-authenticate"]
            assert challenge.startswith("Bearer ")
            assert ("invalid_token" in challenge) is is_wrong
            assert TOKEN not in response.text + challenge


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "server.example"])
@pytest.mark.parametrize(("token", "no_auth"), [("", False), ("", True), (TOKEN, True)])
def test_other_machines_need_a_token_from_the_settings(
    host: str, token: str, no_auth: bool, tmp_path: Path
) -> None:
    """A token that was made lies on this machine, where they cannot read it."""
    with pytest.raises(InvalidRequest, match="KIRO_MCP_HTTP_TOKEN"):
        choose_token(token, host=host, no_auth=no_auth, file=tmp_path / "token")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_token_in_the_settings_is_used(host: str) -> None:
    token = choose_token(TOKEN, host=host, no_auth=False)
    assert token == Token(secret=TOKEN, where="KIRO_MCP_HTTP_TOKEN")


def test_a_password_that_everybody_knows_is_refused() -> None:
    """It stands in the example that other gateways tell people to copy."""
    with pytest.raises(InvalidRequest, match="examples"):
        choose_token("my-super-secret-password-123", host="127.0.0.1", no_auth=False)


def test_no_auth_turns_off_the_token_on_loopback() -> None:
    assert choose_token("", host="::1", no_auth=True).secret == ""


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "token"
    token = choose_token("", host="127.0.0.1", no_auth=False, file=file)
    assert token.where == str(file)
    assert file.read_text("ascii").strip() == token.secret
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert choose_token("", host="localhost", no_auth=False, file=file) == token


@pytest.mark.parametrize(
    ("content", "mode"),
    [(b"", 0o600), (b"short\n", 0o600), (b"\xff" * 64, 0o600), (b"x" * 64, 0o644)],
    ids=["empty", "short", "no-ascii", "readable"],
)
def test_a_token_that_cannot_be_trusted_is_refused(
    content: bytes, mode: int, tmp_path: Path
) -> None:
    """Others may know it, or an empty one would let in everybody."""
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(InvalidRequest, match="Delete the file"):
        choose_token("", host="127.0.0.1", no_auth=False, file=file)


@pytest.mark.skipif(os.name != "posix", reason="owners are those of POSIX")
def test_a_token_in_a_link_or_of_another_user_is_refused(tmp_path: Path) -> None:
    """Root can read every file, but the user who made this file knows the token."""
    file = tmp_path / "token"
    token = choose_token("", host="127.0.0.1", no_auth=False, file=file)
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(InvalidRequest, match="it is a link"):
        choose_token("", host="127.0.0.1", no_auth=False, file=link)
    assert choose_token("", host="127.0.0.1", no_auth=False, file=file) == token
    if os.geteuid() == 0:
        os.chown(file, 65534, -1)
        with pytest.raises(InvalidRequest, match="belongs to another user"):
            choose_token("", host="127.0.0.1", no_auth=False, file=file)


def test_a_token_that_can_be_guessed_is_not_enough_for_other_machines() -> None:
    """On loopback only this machine's users can try it; on a network anybody can."""
    for token in ("x", "hunter2", "x" * 15):
        with pytest.raises(InvalidRequest, match="at least 16 characters") as caught:
            choose_token(token, host="0.0.0.0", no_auth=False)
        assert f"{len(token)} characters" in str(caught.value)
        assert choose_token(token, host="127.0.0.1", no_auth=False).secret == token
    assert choose_token("x" * 16, host="0.0.0.0", no_auth=False).secret


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="Set KIRO_MCP_HTTP_TOKEN instead"):
        choose_token("", host="127.0.0.1", no_auth=False, file=tmp_path / "file" / "token")


def test_a_token_must_be_set_if_there_is_no_folder_for_one() -> None:
    """Containers often have no home."""
    with pytest.raises(InvalidRequest, match="KIRO_MCP_HTTP_TOKEN"):
        choose_token("", host="127.0.0.1", no_auth=False, file=None)


def test_a_token_does_not_show_when_it_is_printed() -> None:
    """Such values end up in logs."""
    assert TOKEN not in repr(Token(secret=TOKEN, where="here"))


def test_a_generated_token_cannot_be_guessed(tmp_path: Path) -> None:
    """RFC 6750, section 5.2; 256 bits are 43 characters."""
    files = [tmp_path / str(number) for number in range(2)]
    one, other = (choose_token("", host="::1", no_auth=False, file=file) for file in files)
    assert one.secret != other.secret
    assert len(one.secret) == 43
