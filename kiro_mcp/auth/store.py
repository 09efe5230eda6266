"""Our own store: the logins that were made with kiro-mcp, in one private file.

::

    credentials.json   {"version": 1,
                        "logins":     {hosts: login},      "" for the vendor's own hosts
                        "successors": {digest: login},     renewed logins of other sources, by the
                                                           digest of the spent refresh token
                        "clients":    {hosts region start: registration}}

A login at other hosts (a proxy, the emulator) has its own entry, so that the default login is
never sent there. Each change reads and replaces the whole file under a lock.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias, cast

import anyio
import anyio.to_thread

from kiro_mcp.auth.credentials import (
    ClientRegistration,
    Credential,
    format_time,
    own_document,
    parse_object,
    read_credential,
    read_registration,
    text_of,
)
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.files import Sleep, hold_lock, read_text, replace_text

FILE_NAME: Final = "credentials.json"
OWN_SOURCE: Final = "kiro-mcp's own login"

_VERSION: Final = 1
_LOCK_SECONDS: Final = 10.0
_MAX_KEPT: Final = 32
"""How many successors and registrations are kept; the oldest are dropped."""

Contents: TypeAlias = dict[str, object]


def hosts_key(overrides: Mapping[str, str]) -> str:
    """Return the key for the hosts at which a login is made; "" for the vendor's own."""
    set_ones = {name: url for name, url in sorted(overrides.items()) if url}
    if len(set(set_ones.values())) == 1 and len(set_ones) == len(overrides):
        return next(iter(set_ones.values()))
    return " ".join(f"{name}={url}" for name, url in set_ones.items())


def digest(secret: str) -> str:
    """Return a name for a secret that does not reveal it."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


class OwnStore:
    """The file, as seen by one set of hosts.

    Reading blocks, so call it in a thread. It raises `ValueError` if the file is not a JSON object
    or holds an invalid token, and `OSError` if it exists and cannot be read. Writing raises
    `InvalidRequest` if the file cannot be written, or is damaged.
    """

    def __init__(self, folder: Path, hosts: str = "", *, sleep: Sleep = anyio.sleep) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME
        self.hosts = hosts
        self._sleep = sleep

    # --- reading ---------------------------------------------------------------------------

    def login(self) -> Credential | None:
        """Return the login for these hosts, else the default one; None for neither.

        The default login is never sent to other hosts.
        """
        contents = self._read()
        for key in dict.fromkeys((self.hosts, "")):
            is_explicit = key == self.hosts != ""
            if found := self._credential(contents, "logins", key, is_explicit=is_explicit):
                return found
        return None

    def successor(self, key: str) -> Credential | None:
        """Return what a refresh token from another source was renewed to, by its digest."""
        return self._credential(self._read(), "successors", key, is_explicit=True)

    def client(self, key: str) -> ClientRegistration | None:
        """Return a client registration; None if the file has none under this key."""
        return read_registration(_section(_section(self._read(), "clients"), key), is_all=True)

    def _credential(
        self, contents: Contents, section: str, key: str, *, is_explicit: bool
    ) -> Credential | None:
        path = str(self.path)
        where = Credential(
            source=OWN_SOURCE, origin="own", path=path, key=key, is_explicit=is_explicit
        )
        return read_credential(_section(_section(contents, section), key), where)

    def _read(self) -> Contents:
        try:
            return parse_object(read_text(self.path))
        except FileNotFoundError:
            return {}

    # --- writing ---------------------------------------------------------------------------

    async def save_login(self, credential: Credential) -> None:
        """Save a new login for these hosts."""
        await self._change("logins", self.hosts, own_document(credential))

    async def renew_login(self, renewed: Credential, *, spent_refresh_token: str) -> bool:
        """Replace a login by its renewed one, if the file still holds the old one.

        Returns:
            Whether it was replaced. If not, somebody has signed in again, or out.
        """
        document = own_document(renewed)
        return await self._change("logins", renewed.key, document, spent=spent_refresh_token)

    async def save_successor(self, key: str, renewed: Credential) -> None:
        """Save what a refresh token from another source was renewed to, by its digest."""
        await self._change("successors", key, own_document(renewed))

    async def save_client(self, key: str, client: ClientRegistration) -> None:
        """Save a client registration for the next login."""
        document: Contents = {
            "clientId": client.client_id,
            "clientSecret": client.client_secret,
            "expiresAt": format_time(client.expires_at),
            "region": client.region,
        }
        await self._change("clients", key, document)

    async def remove_login(self, key: str) -> bool:
        """Remove a login; return whether the file had it."""
        return self.path.exists() and await self._change("logins", key, None)

    async def _change(
        self, section: str, key: str, document: Contents | None, *, spent: str | None = None
    ) -> bool:
        """Replace an entry, or remove it if there is no new document.

        Returns:
            Whether it did. It does not if the entry to remove is missing, or if the one to replace
            no longer holds the refresh token that was spent.
        """

        def change() -> bool:
            contents = self._read()
            entries = _section(contents, section)
            old = _section(entries, key)
            entries.pop(key, None)
            if spent is not None and text_of(old, "refresh_token") != spent:
                return False
            if document is not None:
                # The old entry may have members that only a later version of this program knows.
                entry = {**old, **document}.items()
                entries[key] = {name: it for name, it in entry if document.get(name, True)}
            elif not old:
                return False
            kept = entries if section == "logins" else dict([*entries.items()][-_MAX_KEPT:])
            text = json.dumps({"version": _VERSION, **contents, section: kept}, indent=1)
            for stale in self.folder.glob(f".{FILE_NAME}.*.tmp"):
                stale.unlink(missing_ok=True)  # Left by a killed process: we hold the lock.
            replace_text(self.path, text)
            return True

        try:
            lock = self.folder / f"{FILE_NAME}.lock"
            async with hold_lock(lock, timeout_seconds=_LOCK_SECONDS, sleep=self._sleep):
                return await anyio.to_thread.run_sync(change)
        except ValueError as error:
            raise InvalidRequest(
                f"The file of logins {str(self.path)!r} is damaged ({error}).",
                next_step="Move it away and sign in again.",
            ) from error
        except OSError as error:
            raise InvalidRequest(
                f"The login could not be saved in {str(self.path)!r} ({error}).",
                next_step="Make its folder writable, or set KIRO_MCP_HOME to another one.",
            ) from error


def _section(contents: Contents, name: str) -> Contents:
    """Return an object in another one; {} for anything else."""
    found = contents.get(name)
    return dict(cast("Contents", found)) if isinstance(found, dict) else {}
