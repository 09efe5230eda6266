"""What every test shares."""

from collections.abc import AsyncGenerator

import pytest

from kiro_mcp.emulator import RunningEmulator, running


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio: the HTTP server that the emulator stands on knows no other."""
    return "asyncio"


@pytest.fixture
async def emulator() -> AsyncGenerator[RunningEmulator]:
    """Serve a stand-in for the service, on a free port of this machine."""
    async with running() as emulator:
        yield emulator
