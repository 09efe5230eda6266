"""What every test shares."""

import signal
from collections.abc import AsyncGenerator, Generator

import pytest
from hypothesis import HealthCheck, settings

from kiro_mcp.emulator import RunningEmulator, running
from tests.support.secrets import begin_with_one_secret
from tests.support.stdio import forget_home

# A busy machine may hold any example up for a second; what is tested is never how long it takes.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


def pytest_configure() -> None:
    """Let the tested programs see Ctrl-C, which programs in a shell's background ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Run one worker more than there are processors: many tests wait for a process to end."""
    return (yield) + 1


def pytest_runtest_setup() -> None:
    """Forget secrets after each test."""
    begin_with_one_secret()


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    forget_home()


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio: the emulator's HTTP server needs it."""
    return "asyncio"


@pytest.fixture
async def emulator() -> AsyncGenerator[RunningEmulator]:
    """Serve a stand-in for the service, on a free port of this machine."""
    async with running() as emulator:
        yield emulator
