"""An emulator of the Kiro service on loopback: for `--offline`, for tests and for users' CI.

It speaks real HTTP, answers with real frames, refuses what the service refuses, and says in its
answers that they are canned. A prompt with a line `/emulate NAME` picks another answer; a test can
enqueue its own::

    async with running() as emulator:
        emulator.state.enqueue((Send(frames.text("One word.") + frames.ending()),))

Scripts can also be files (`kiro_mcp.emulator.script_files`). `kiro_mcp.emulator.pytest_plugin` has
a fixture for the tests of other projects, `kiro_mcp.emulator.kiro_cli` a stand-in for the vendor's
program. Most names are imported at their first use, so that the stand-in starts quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from kiro_mcp.emulator.accounts import (
    BUILDER_ID_PROFILE_ARN,
    BUILDER_ID_START_URL,
    EMULATOR_ACCESS_TOKEN,
    EMULATOR_API_KEY,
    EMULATOR_BUILDER_ID_ACCESS_TOKEN,
    EMULATOR_CLIENT_ID,
    EMULATOR_CLIENT_SECRET,
    EMULATOR_PROFILE_ARN,
    EMULATOR_REFRESH_TOKEN,
    EMULATOR_SOCIAL_ACCESS_TOKEN,
    EMULATOR_SOCIAL_REFRESH_TOKEN,
    Accounts,
)

if TYPE_CHECKING:
    from kiro_mcp.emulator import frames, refusals
    from kiro_mcp.emulator.app import RunningEmulator, build_app, running
    from kiro_mcp.emulator.refusals import Refusal
    from kiro_mcp.emulator.scripts import Cut, HttpAnswer, Pause, Script, Send, Until
    from kiro_mcp.emulator.state import EmulatorState, SeenRequest

__all__ = [
    "BUILDER_ID_PROFILE_ARN",
    "BUILDER_ID_START_URL",
    "EMULATOR_ACCESS_TOKEN",
    "EMULATOR_API_KEY",
    "EMULATOR_BUILDER_ID_ACCESS_TOKEN",
    "EMULATOR_CLIENT_ID",
    "EMULATOR_CLIENT_SECRET",
    "EMULATOR_PROFILE_ARN",
    "EMULATOR_REFRESH_TOKEN",
    "EMULATOR_SOCIAL_ACCESS_TOKEN",
    "EMULATOR_SOCIAL_REFRESH_TOKEN",
    "Accounts",
    "Cut",
    "EmulatorState",
    "HttpAnswer",
    "Pause",
    "Refusal",
    "RunningEmulator",
    "Script",
    "SeenRequest",
    "Send",
    "Until",
    "build_app",
    "frames",
    "refusals",
    "running",
]


def __getattr__(name: str) -> object:
    if name in ("frames", "refusals"):
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.app"), name)  # It uses all other names.
