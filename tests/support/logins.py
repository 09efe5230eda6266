"""Logins as they are stored on disk: our own store, the Kiro IDE's file, kiro-cli's database."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import anyio.lowlevel

from kiro_mcp.auth.credentials import ClientRegistration, Credential
from kiro_mcp.auth.store import OwnStore
from kiro_mcp.emulator import (
    EMULATOR_ACCESS_TOKEN,
    EMULATOR_CLIENT_ID,
    EMULATOR_CLIENT_SECRET,
    EMULATOR_PROFILE_ARN,
    EMULATOR_REFRESH_TOKEN,
    EMULATOR_SOCIAL_ACCESS_TOKEN,
    EMULATOR_SOCIAL_REFRESH_TOKEN,
    EmulatorState,
)

LONG_AGO = "2020-01-01T00:00:00.000Z"
IDC_START_URL = "https://acme.awsapps.com/start"


class Clock:
    """A clock that moves only when it is told to, and a sleep that moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, tzinfo=UTC)
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await anyio.lowlevel.checkpoint()


def idc_credential(*, is_expired: bool = True) -> Credential:
    """The emulator's Identity Center login."""
    ends = datetime(2020, 1, 1, tzinfo=UTC) if is_expired else datetime(2099, 1, 1, tzinfo=UTC)
    return Credential(
        kind="idc",
        access_token=EMULATOR_ACCESS_TOKEN,
        refresh_token=EMULATOR_REFRESH_TOKEN,
        expires_at=ends,
        profile_arn=EMULATOR_PROFILE_ARN,
        region="us-east-1",
        client=ClientRegistration(
            client_id=EMULATOR_CLIENT_ID, client_secret=EMULATOR_CLIENT_SECRET
        ),
        start_url=IDC_START_URL,
        source="a test",
        origin="own",
    )


async def sign_in_before(folder: Path, url: str, *, is_expired: bool = True) -> OwnStore:
    """Save a login of an emulator in our own store."""
    store = OwnStore(folder, url)
    await store.save_login(idc_credential(is_expired=is_expired))
    return store


def accepted_refresh_tokens(state: EmulatorState) -> list[str]:
    """The refresh tokens that an emulator would take now, oldest first, of every client."""
    kept = cast("dict[str, object]", state.accounts._refresh)  # pyright: ignore[reportPrivateUsage]  # trying one would spend it
    return list(kept)


def write_json(path: Path, document: Mapping[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), "utf-8")
    return path


def ide_social(home: Path, *, expires_at: str = LONG_AGO, **members: object) -> Path:
    """The Kiro IDE's file after a login with Google."""
    return write_json(
        home / ".aws/sso/cache/kiro-auth-token.json",
        {
            "accessToken": EMULATOR_SOCIAL_ACCESS_TOKEN,
            "refreshToken": EMULATOR_SOCIAL_REFRESH_TOKEN,
            "expiresAt": expires_at,
            "profileArn": EMULATOR_PROFILE_ARN,
            "authMethod": "social",
            "provider": "Google",
            **members,
        },
    )


def kiro_cli_database(
    path: Path, rows: Mapping[str, object], state: Mapping[str, object] | None = None
) -> Path:
    """A database as kiro-cli makes it; values that are not text are written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS auth_kv (key TEXT PRIMARY KEY, value TEXT)")
        database.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB)")
        for table, values in (("auth_kv", rows), ("state", state or {})):
            for key, value in values.items():
                text = value if isinstance(value, str | bytes) else json.dumps(value)
                statement = f"INSERT OR REPLACE INTO {table} VALUES (?, ?)"
                database.execute(statement, (key, text))
        database.commit()
    return path


def odic_rows(*, expires_at: object = LONG_AGO, **members: object) -> dict[str, object]:
    """kiro-cli's rows after a login with Identity Center."""
    return {
        "kirocli:odic:token": {
            "access_token": EMULATOR_ACCESS_TOKEN,
            "refresh_token": EMULATOR_REFRESH_TOKEN,
            "expires_at": expires_at,
            "region": "us-east-1",
            "start_url": IDC_START_URL,
            "oauth_flow": "DeviceCode",
            "scopes": ["codewhisperer:completions"],
            **members,
        },
        "kirocli:odic:device-registration": {
            "client_id": EMULATOR_CLIENT_ID,
            "client_secret": EMULATOR_CLIENT_SECRET,
            "client_secret_expires_at": "2099-01-01T00:00:00Z",
            "region": "us-east-1",
            "oauth_flow": "DeviceCode",
        },
    }


def row_of(path: Path, key: str) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT value FROM auth_kv WHERE key = ?", (key,)).fetchone()
    return json.loads(found[0])
