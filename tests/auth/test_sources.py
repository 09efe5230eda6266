"""Where credentials are looked for: real files, real databases, every platform's paths."""

import sqlite3
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kiro_mcp.auth.credentials import Resolution
from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.sources import Sources
from kiro_mcp.auth.store import OwnStore, hosts_key
from kiro_mcp.emulator import EMULATOR_ACCESS_TOKEN, EMULATOR_SOCIAL_ACCESS_TOKEN
from kiro_mcp.errors import ServiceUnavailable
from kiro_mcp.server.engine import Engine
from kiro_mcp.settings import Settings
from tests.support.logins import (
    IDC_START_URL,
    LONG_AGO,
    idc_credential,
    ide_social,
    kiro_cli_database,
    odic_rows,
    write_json,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER = "2026-11-01T01:00:00.123456789Z"
ARN = "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE"
CLI_DB = ".local/share/kiro-cli/data.sqlite3"


def sources(home: Path, platform: str = "linux", **environ: str) -> Sources:
    settings = Settings.load(environ)
    machine = Machine(home=home, platform=platform, environ=environ)
    return Sources(settings, machine, OwnStore(home / "own"), now=lambda: NOW)


def look(home: Path, platform: str = "linux", **environ: str) -> Resolution:
    return sources(home, platform, **environ).look()


def why(resolution: Resolution) -> str:
    return "\n".join(map(str, resolution.findings))


async def everywhere(home: Path) -> dict[str, str]:
    """Put a login at each place, and return the settings for the other logins."""
    await OwnStore(home / "own").save_login(idc_credential(is_expired=False))
    ide_social(home, expires_at=LATER)
    kiro_cli_database(home / CLI_DB, odic_rows(expires_at=LATER))
    creds = write_json(home / "creds.json", {"accessToken": "file", "expiresAt": LATER})
    database = kiro_cli_database(home / "other.sqlite3", odic_rows(expires_at=LATER))
    return {
        "KIRO_API_KEY": "ksk_x",
        "KIRO_REFRESH_TOKEN": "aorX",
        "KIRO_ACCESS_TOKEN": "aoaX",
        "KIRO_CREDS_FILE": str(creds),
        "KIRO_CLI_DB_FILE": str(database),
    }


async def test_the_order_is_environment_named_files_own_login_found_ones(tmp_path: Path) -> None:
    """The more deliberate choice comes first."""
    environ = await everywhere(tmp_path)
    used: list[str] = []
    for name in [*environ, "own", "ide"]:
        found = look(tmp_path, **environ)
        assert found.credential
        (finding,) = (one for one in found.findings if one.is_used)
        assert finding.source == found.credential.source
        used.append(found.credential.source.partition(" (")[0])
        environ.pop(name, None)
        if name == "KIRO_REFRESH_TOKEN":
            continue
        if name == "own":
            (tmp_path / "own" / "credentials.json").unlink()
    last = look(tmp_path).credential
    assert last
    used.append(last.source.partition(" (")[0])
    assert used == [
        "KIRO_API_KEY",
        "KIRO_REFRESH_TOKEN",
        "KIRO_ACCESS_TOKEN",
        "KIRO_CREDS_FILE",
        "KIRO_CLI_DB_FILE",
        "kiro-mcp's own login",
        "the Kiro IDE",
        "the Kiro IDE",
    ]


async def test_only_what_the_user_named_counts_as_given_for_this_run(tmp_path: Path) -> None:
    """Only such a credential may go to an overridden host."""
    environ = await everywhere(tmp_path)
    named: list[bool] = []
    for name in list(environ):
        found = look(tmp_path, **{name: environ[name]}).credential
        named.append(bool(found and found.is_explicit))
    assert named == [True] * 5
    own = look(tmp_path).credential
    assert own
    assert not own.is_explicit
    assert own.path == str(tmp_path / "own" / "credentials.json")
    (tmp_path / "own" / "credentials.json").unlink()
    found = look(tmp_path).credential
    assert found
    assert not found.is_explicit


def test_a_named_file_that_cannot_be_used_is_an_error_and_not_another_account(
    tmp_path: Path,
) -> None:
    """Using the next source would bill another account."""
    ide_social(tmp_path, expires_at=LATER)
    for variable in ("KIRO_CREDS_FILE", "KIRO_CLI_DB_FILE"):
        found = look(tmp_path, **{variable: "~/missing"})
        assert found.credential is None
        assert variable in str(found.problem)
        assert "not there" in str(found.problem)


@pytest.mark.parametrize("broken", ["aoa\nmore", "aoa\u043a", "aoa\x00"])
@pytest.mark.parametrize("name", ["accessToken", "profileArn"])
def test_a_token_that_no_request_can_carry_is_named_and_not_shown(
    name: str, broken: str, tmp_path: Path
) -> None:
    """A file that a person wrote may end with a newline, which requests must not contain."""
    document = {"accessToken": "good", "expiresAt": LATER, name: broken}
    found = look(tmp_path, KIRO_CREDS_FILE=str(write_json(tmp_path / "login", document)))
    assert found.credential is None
    assert "not printable ASCII" in str(found.problem)
    assert "aoa" not in f"{found.problem} {why(found)}"


@pytest.mark.parametrize("environ", [{}, {"KIRO_REFRESH_TOKEN": "aorX"}])
def test_the_error_for_our_own_damaged_file_says_what_to_do(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """No setting is wrong, and signing in would not help."""
    path = tmp_path / "own/credentials.json"
    path.parent.mkdir()
    path.write_text("{", "utf-8")
    problem = str(look(tmp_path, **environ).problem)
    assert f"The file of logins {path} cannot be used" in problem
    assert "move it away" in problem
    assert "setting" not in problem


@pytest.mark.parametrize("variable", ["KIRO_CREDS_FILE", "KIRO_CLI_DB_FILE"])
def test_a_tilde_in_a_named_path_is_the_users_folder(variable: str, tmp_path: Path) -> None:
    """Clients hand a setting on as it is written, without a shell."""
    write_json(tmp_path / "sub/login", {"accessToken": "file", "expiresAt": LATER})
    kiro_cli_database(tmp_path / "sub/database", odic_rows(expires_at=LATER))
    name = "login" if variable == "KIRO_CREDS_FILE" else "database"
    found = look(tmp_path, **{variable: f"~/sub/{name}"})
    assert found.problem is None
    assert found.credential
    assert found.credential.path == str(tmp_path / "sub" / name)


@pytest.mark.parametrize(
    ("members", "region"), [({}, "eu-west-1"), ({"region": "ap-south-1"}, "ap-south-1")]
)
def test_the_region_of_the_settings_is_that_of_a_login_that_names_none(
    members: dict[str, str], region: str, tmp_path: Path
) -> None:
    """Observed: a refresh in another region is answered like a revoked token."""
    document = {"accessToken": "a", "refreshToken": "r", "expiresAt": LATER, **members}
    file = write_json(tmp_path / "login", document)
    found = look(tmp_path, KIRO_CREDS_FILE=str(file), KIRO_REGION="eu-west-1").credential
    given = look(tmp_path, KIRO_REFRESH_TOKEN="aorX", KIRO_REGION="eu-west-1").credential
    assert found
    assert given
    assert (found.region, given.region) == (region, "eu-west-1")


def test_each_source_says_why_it_is_not_used(tmp_path: Path) -> None:
    """The question "why is it not using my login" has an answer."""
    write_json(tmp_path / ".aws/sso/cache/kiro-auth-token.json", {})
    kiro_cli_database(tmp_path / CLI_DB, {"kirocli:odic:token": "null"})
    text = why(look(tmp_path))
    assert "nobody has signed in here" in text
    assert "holds no token" in text
    assert "signed out there" in text
    assert "not there" in text


def test_a_found_login_that_is_good_now_wins_over_one_that_has_expired(tmp_path: Path) -> None:
    """The IDE's file may have been left behind years ago."""
    ide_social(tmp_path, expires_at=LONG_AGO)
    kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LATER))
    found = look(tmp_path)
    assert found.credential
    assert found.credential.access_token == EMULATOR_ACCESS_TOKEN
    assert "has expired, but another one comes first" in why(found)


@pytest.mark.parametrize(
    ("platform", "path", "environ"),
    [
        ("linux", CLI_DB, {}),
        ("linux", "xdg/kiro-cli/data.sqlite3", {"XDG_DATA_HOME": "xdg"}),
        ("linux", CLI_DB, {"XDG_DATA_HOME": "xdg"}),
        ("linux", ".local/share/amazon-q/data.sqlite3", {}),
        ("linux", ".kiro-cli/auth.db", {}),
        ("darwin", "Library/Application Support/kiro-cli/data.sqlite3", {}),
        ("darwin", "Library/Application Support/amazon-q/data.sqlite3", {}),
        ("win32", "AppData/Local/Kiro-Cli/data.sqlite3", {}),
        ("win32", "AppData/Roaming/Kiro-Cli/data.sqlite3", {}),
        ("win32", "Local/Kiro-Cli/data.sqlite3", {"LOCALAPPDATA": "Local"}),
        ("win32", "Roaming/Kiro-Cli/data.sqlite3", {"APPDATA": "Roaming"}),
        ("win32", "AppData/Local/amazon-q/data.sqlite3", {}),
    ],
)
def test_a_database_is_found_where_its_platform_keeps_it(
    platform: str, path: str, environ: dict[str, str], tmp_path: Path
) -> None:
    """Observed: the usual data folder of each system; on Windows the local one comes first."""
    kiro_cli_database(tmp_path / path, odic_rows(expires_at=LATER))
    absolute = {name: str(tmp_path / folder) for name, folder in environ.items()}
    found = look(tmp_path, platform, **absolute).credential
    assert found
    assert found.path == str(tmp_path / path)


@pytest.mark.parametrize(
    ("named", "environ", "expected"),
    [
        ("", {}, "/home/me/.local/share/kiro-mcp"),
        ("", {"XDG_DATA_HOME": "/data"}, "/data/kiro-mcp"),
        ("~/here", {}, "/home/me/here"),
        ("~", {}, "/home/me"),
        ("/there", {"XDG_DATA_HOME": "/data"}, "/there"),
        ("~other", {}, "~other"),
    ],
)
def test_our_own_folder_is_the_settings_or_else_in_the_systems_data_folder(
    named: str, environ: dict[str, str], expected: str
) -> None:
    """The XDG base directory specification."""
    machine = Machine.of({"HOME": "/home/me", **environ}, "linux")
    assert own_home(machine, named) == Path(expected)
    assert own_home(Machine.of(environ, "linux"), "/there") == Path("/there")
    assert own_home(Machine.of(environ, "linux")) is None


def test_the_users_folder_is_the_one_that_the_environment_names() -> None:
    """Windows has another name for it."""
    assert Machine.of({"HOME": "/a", "USERPROFILE": "/b"}, "win32").home == Path("/a")
    assert Machine.of({"HOME": "", "USERPROFILE": "/b"}, "win32").home == Path("/b")
    assert Machine.of({}, "win32").home is None


def test_a_machine_without_a_home_is_not_searched() -> None:
    machine = Machine.of({}, "linux")
    found = Sources(Settings.load({}), machine, None, now=lambda: NOW).look()
    assert (found.credential, found.findings) == (None, ())


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({}, ""),
        ({"oidc": "", "runtime": ""}, ""),
        ({"oidc": "http://a", "runtime": "http://a"}, "http://a"),
        ({"runtime": "http://a", "oidc": "http://b"}, "oidc=http://b runtime=http://a"),
        ({"oidc": "http://a", "runtime": ""}, "oidc=http://a"),
    ],
)
def test_our_own_login_is_saved_under_the_hosts_at_which_it_was_made(
    overrides: dict[str, str], key: str
) -> None:
    """If an upgrade changed its key, the login would be lost."""
    assert hosts_key(overrides) == key


# --- the Kiro IDE -------------------------------------------------------------------------


def test_a_social_login_of_the_ide_is_read_with_its_profile(tmp_path: Path) -> None:
    """Observed: the IDE's file after a login with Google."""
    ide_social(tmp_path, expires_at=LATER, profileArn=ARN)
    found = look(tmp_path).credential
    assert found
    assert (found.kind, found.profile_arn) == ("social", ARN)
    assert found.access_token == EMULATOR_SOCIAL_ACCESS_TOKEN
    assert found.client is None


@pytest.mark.parametrize("registration", [None, "{", '{"clientId": "id"}', "[]"])
def test_an_organisations_login_of_the_ide_is_usable_without_its_registration(
    registration: str | None, tmp_path: Path
) -> None:
    """Observed: the registration has a file of its own, which may be gone."""
    path = ide_social(
        tmp_path,
        expires_at=LATER,
        authMethod="IdC",
        provider="Enterprise",
        clientIdHash="a" * 40,
        profileArn="",
        region="eu-west-1",
    )
    if registration is not None:
        (path.parent / f"{'a' * 40}.json").write_text(registration, "utf-8")
    found = look(tmp_path).credential
    assert found
    assert (found.kind, found.region) == ("idc", "eu-west-1")
    assert found.is_usable(NOW)
    assert not found.can_refresh()


@pytest.mark.parametrize(
    ("platform", "base", "environ"),
    [
        ("linux", ".config", ()),
        ("linux", "xdg", ("XDG_CONFIG_HOME",)),
        ("darwin", "Library/Application Support", ()),
        ("win32", "AppData/Roaming", ()),
        ("win32", "Roaming", ("APPDATA",)),
    ],
)
def test_the_profile_of_an_organisations_login_is_in_the_ides_settings(
    platform: str, base: str, environ: tuple[str, ...], tmp_path: Path
) -> None:
    """Observed: `profile.json` of the IDE's own extension."""
    ide_social(tmp_path, authMethod="IdC", profileArn="", clientIdHash="a" * 40)
    folder = tmp_path / base / "Kiro/User/globalStorage/kiro.kiroagent"
    write_json(folder / "profile.json", {"arn": ARN})
    write_json(tmp_path / f".aws/sso/cache/{'a' * 40}.json", {"clientId": "i", "clientSecret": "s"})
    found = look(tmp_path, platform, **{name: str(tmp_path / base) for name in environ}).credential
    assert found
    assert found.profile_arn == ARN
    assert found.can_refresh()


def test_the_ides_profile_is_not_that_of_a_login_in_another_file(tmp_path: Path) -> None:
    """Observed: a call that names a stranger's profile is refused."""
    ide = ide_social(tmp_path, authMethod="IdC", profileArn="", clientIdHash="a" * 40)
    folder = tmp_path / ".config/Kiro/User/globalStorage/kiro.kiroagent"
    write_json(folder / "profile.json", {"arn": ARN})
    login = {"accessToken": "aoaOther", "clientId": "i", "clientSecret": "s", "authMethod": "IdC"}
    other = write_json(tmp_path / "other.json", login)
    for path, expected in ((other, ""), (ide, ARN)):
        found = look(tmp_path, KIRO_CREDS_FILE=str(path)).credential
        assert found
        assert (found.kind, found.profile_arn) == ("idc", expected)


# --- kiro-cli -----------------------------------------------------------------------------


def test_the_rows_of_a_login_are_read_with_profile_and_client(tmp_path: Path) -> None:
    """Observed: `state` holds bytes and JSON-quoted texts."""
    state = {
        "api.codewhisperer.profile": b'{"arn": "%s", "profile_name": "x"}' % ARN.encode(),
        "auth.idc.region": b'"eu-west-2"',
    }
    rows = odic_rows(expires_at=LATER, region=None)
    del rows["kirocli:odic:device-registration"]["region"]  # pyright: ignore[reportIndexIssue, reportUnknownMemberType]  # an object
    kiro_cli_database(tmp_path / CLI_DB, rows, state)
    found = look(tmp_path).credential
    assert found
    assert (found.kind, found.profile_arn, found.region) == ("idc", ARN, "eu-west-2")
    assert found.key == "kirocli:odic:token"
    assert found.can_refresh()


def test_the_region_of_a_row_comes_before_that_of_the_latest_login(tmp_path: Path) -> None:
    """The open source of kiro-cli: `state` remembers what was typed last."""
    state = {"auth.idc.region": b'"eu-west-2"'}
    kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LATER), state)
    found = look(tmp_path).credential
    assert found
    assert found.region == "us-east-1"


def test_the_region_of_a_registration_comes_before_that_of_the_latest_login(
    tmp_path: Path,
) -> None:
    """Observed: a refresh token is bound to its client, in the region where that is registered."""
    state = {"auth.idc.region": b'"eu-west-2"'}
    kiro_cli_database(tmp_path / CLI_DB, odic_rows(region=None, expires_at=LATER), state)
    found = look(tmp_path).credential
    assert found
    assert (found.region, found.can_refresh(), found.problem) == ("us-east-1", True, "")


@pytest.mark.parametrize(
    ("flow", "clients", "can_refresh"),
    [
        ("DeviceCode", "DeviceCode", True),
        ("Pkce", "PKCE", True),
        ("Pkce", None, True),
        ("Pkce", "DeviceCode", False),
    ],
)
def test_a_client_registered_for_another_way_to_sign_in_is_not_used_for_a_refresh(
    flow: str, clients: str | None, can_refresh: bool, tmp_path: Path
) -> None:
    """The source of kiro-cli's predecessor, which does not try to, either."""
    rows = odic_rows(expires_at=LATER, oauth_flow=flow)
    client = {"client_id": "i", "client_secret": "s", "region": "us-east-1", "oauth_flow": clients}
    kiro_cli_database(tmp_path / CLI_DB, {**rows, "kirocli:odic:device-registration": client})
    found = look(tmp_path).credential
    assert found
    assert found.can_refresh() is can_refresh


def test_a_login_without_a_start_url_is_builder_ids(tmp_path: Path) -> None:
    """The source of kiro-cli's predecessor."""
    kiro_cli_database(tmp_path / CLI_DB, odic_rows(start_url=None))
    found = look(tmp_path).credential
    assert found
    assert found.kind == "builder_id"


def test_the_rows_of_amazon_q_are_read(tmp_path: Path) -> None:
    """The open source of Amazon Q's command line."""
    rows = {key.replace("kirocli:", "codewhisperer:"): row for key, row in odic_rows().items()}
    kiro_cli_database(tmp_path / ".local/share/amazon-q/data.sqlite3", rows)
    found = look(tmp_path).credential
    assert found
    assert (found.key, found.kind) == ("codewhisperer:odic:token", "idc")
    assert found.can_refresh()


def test_a_registration_belongs_to_the_token_of_its_own_prefix(tmp_path: Path) -> None:
    """Observed: an old one of the predecessor makes every refresh fail."""
    rows = odic_rows()
    stale = rows.pop("kirocli:odic:device-registration")
    kiro_cli_database(tmp_path / CLI_DB, {**rows, "codewhisperer:odic:device-registration": stale})
    found = look(tmp_path).credential
    assert found
    assert found.client is None
    assert "registration" in found.problem


def test_a_social_row_takes_no_client_from_its_neighbour(tmp_path: Path) -> None:
    """Observed: with one it would be refreshed at the wrong service."""
    social = {"access_token": "s", "refresh_token": "r", "expires_at": LATER, "provider": "google"}
    kiro_cli_database(tmp_path / CLI_DB, {**odic_rows(), "kirocli:social:token": social})
    found = look(tmp_path).credential
    assert found
    assert (found.kind, found.client, found.access_token) == ("social", None, "s")


@pytest.mark.parametrize(
    ("family", "kind"), [("social", "social"), ("odic", "idc"), ("external-idp", "external_idp")]
)
def test_the_key_of_a_row_decides_its_kind_of_login(family: str, kind: str, tmp_path: Path) -> None:
    """The open source of kiro-cli: each kind of login has a key of its own."""
    for members in ({}, {"auth_method": "other"}, {"client_id": "c", "client_secret": "s"}):
        row = {"access_token": "a", "refresh_token": "r", "start_url": IDC_START_URL, **members}
        kiro_cli_database(tmp_path / CLI_DB, {f"kirocli:{family}:token": row})
        found = look(tmp_path).credential
        assert found
        assert found.kind == kind


def test_a_login_whose_client_is_of_another_region_says_so(tmp_path: Path) -> None:
    """Observed: the service answers its refresh as it does a revoked token's."""
    kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LATER, region="eu-west-1"))
    found = look(tmp_path).credential
    assert found
    assert found.is_usable(NOW)
    assert found.problem == "its client is registered in us-east-1, not in eu-west-1"


def test_an_external_login_is_read_with_its_endpoint_and_scopes(tmp_path: Path) -> None:
    """Observed: scopes are one text there."""
    external = {
        "access_token": "e",
        "refresh_token": "r",
        "expires_at": LATER,
        "client_id": "c",
        "token_endpoint": "https://acme.okta.com/oauth2/v1/token",
        "issuer_url": "https://acme.okta.com",
        "scopes": "openid offline_access",
    }
    kiro_cli_database(tmp_path / CLI_DB, {"kirocli:external-idp:token": external})
    found = look(tmp_path).credential
    assert found
    assert (found.kind, found.scopes) == ("external_idp", ("openid", "offline_access"))
    assert found.can_refresh()


def test_among_several_rows_the_valid_one_that_ends_last_is_used(tmp_path: Path) -> None:
    """The database does not say which login is the newest."""
    social = {"access_token": "s", "refresh_token": "r", "expires_at": "2026-11-01T02:00:00Z"}
    kiro_cli_database(
        tmp_path / CLI_DB, {**odic_rows(expires_at=LATER), "kirocli:social:token": social}
    )
    found = look(tmp_path).credential
    assert found
    assert found.access_token == "s"


@pytest.mark.parametrize(
    "value", ["null", "{", "[]", "", '{"access_token": ""}', '{"access_token": "a\\nb"}']
)
def test_a_row_without_a_login_is_ignored(value: str, tmp_path: Path) -> None:
    """Observed: `null` means signed out."""
    kiro_cli_database(tmp_path / CLI_DB, {"kirocli:odic:token": value})
    found = look(tmp_path)
    assert found.credential is None
    assert "signed out there" in why(found)


@pytest.mark.parametrize(
    "damaged",
    ["codewhisperer:odic:token", "kirocli:odic:device-registration", "api.codewhisperer.profile"],
)
def test_a_text_that_is_not_utf_8_hides_only_its_own_row(damaged: str, tmp_path: Path) -> None:
    """SQLite stores any bytes as text."""
    path = kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LATER))
    with closing(sqlite3.connect(path)) as database:
        table = "state" if damaged.startswith("api") else "auth_kv"
        statement = f"INSERT OR REPLACE INTO {table} VALUES (?, CAST(? AS TEXT))"
        database.execute(statement, (damaged, b'{"access_token": "\xff\xfe"}'))
        database.commit()
    credential = look(tmp_path).require()
    assert credential.access_token == EMULATOR_ACCESS_TOKEN
    assert credential.can_refresh() == ("registration" not in damaged)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_database_whose_path_is_not_utf_8_is_read(tmp_path: Path) -> None:
    """On Linux, a name is any bytes."""
    home = tmp_path / "h\udcf6me"
    kiro_cli_database(home / CLI_DB, odic_rows(expires_at=LATER))
    assert look(home).require().access_token == EMULATOR_ACCESS_TOKEN


def test_a_refresh_token_that_is_not_utf_8_is_the_services_to_refuse(tmp_path: Path) -> None:
    """The environment may hold any bytes."""
    assert look(tmp_path, KIRO_REFRESH_TOKEN="aorEXAMPLE\udcff").require().can_refresh()


def test_a_damaged_database_and_one_without_tables_are_skipped_with_a_reason(
    tmp_path: Path,
) -> None:
    """A path may hold anything."""
    (tmp_path / ".kiro-cli").mkdir()
    (tmp_path / ".kiro-cli/auth.db").write_bytes(b"no database at all" * 100)
    (tmp_path / CLI_DB).parent.mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / CLI_DB)) as database:
        database.execute("CREATE TABLE other (x)")
    text = why(look(tmp_path))
    assert "cannot be read" in text
    assert "signed out there" in text


def test_a_database_that_another_program_writes_to_is_waited_for(tmp_path: Path) -> None:
    """Observed: kiro-cli locks it for moments."""
    path = kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LATER))
    with closing(sqlite3.connect(path, check_same_thread=False)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        threading.Timer(0.2, writer.rollback).start()
        found = look(tmp_path).credential
    assert found


@pytest.mark.parametrize("is_named", [False, True])
async def test_a_database_that_stays_locked_is_a_passing_fault(
    is_named: bool, tmp_path: Path
) -> None:
    """The user need not sign in because of it: the next call looks again."""
    path = kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LATER))
    environ = {"HOME": str(tmp_path), **({"KIRO_CLI_DB_FILE": str(path)} if is_named else {})}
    async with Engine(Settings.load(environ), environ=environ, now=lambda: NOW) as engine:
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            with pytest.raises(ServiceUnavailable, match="cannot be read now") as caught:
                (await engine.tokens.resolution()).require()
            assert "login" not in caught.value.next_step
        assert (await engine.tokens.resolution()).require().access_token == EMULATOR_ACCESS_TOKEN


@pytest.mark.parametrize("has_log", [False, True])
def test_a_database_beside_which_no_file_can_be_made_is_read(has_log: bool, tmp_path: Path) -> None:
    """SQLite makes one to read a write-ahead log, which a read-only folder forbids."""
    path = kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LONG_AGO))
    log = path.with_name(f"{path.name}-wal")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE auth_kv SET value = replace(value, ?, ?)", (LONG_AGO, LATER))
        writer.commit()
        before = path.read_bytes(), log.read_bytes()
    if has_log:  # As it is while the other program runs, or where that was killed.
        path.write_bytes(before[0])
        log.write_bytes(before[1])
    path.with_name(f"{path.name}-shm").mkdir()
    files = path.read_bytes(), log.read_bytes() if has_log else b""
    found = look(tmp_path).credential
    assert found
    assert found.is_usable(NOW)
    assert (path.read_bytes(), log.read_bytes() if has_log else b"") == files


def test_a_login_in_the_write_ahead_log_is_found(tmp_path: Path) -> None:
    """SQLite: an immutable or copied file would miss it."""
    path = kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LONG_AGO))
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE auth_kv SET value = replace(value, ?, ?)", (LONG_AGO, LATER))
        writer.commit()
        found = look(tmp_path).credential
        assert found
        assert found.is_usable(NOW)


# --- the watch ----------------------------------------------------------------------------


def test_a_change_of_any_file_that_decided_is_noticed(tmp_path: Path) -> None:
    """A login made elsewhere is used by the next call."""
    watching = sources(tmp_path)
    nothing = watching.look()
    assert watching.look_again(nothing) is nothing
    ide_social(tmp_path, expires_at=LATER)
    assert watching.look_again(nothing) is not nothing
    ide = watching.look()
    assert watching.look_again(ide) is ide
    kiro_cli_database(tmp_path / CLI_DB, odic_rows(expires_at=LATER))
    assert watching.look_again(ide) is not ide


def test_a_search_writes_nothing(tmp_path: Path) -> None:
    """Another program's folder must not be changed."""
    kiro_cli_database(tmp_path / CLI_DB, odic_rows())
    before = sorted(tmp_path.rglob("*"))
    look(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
