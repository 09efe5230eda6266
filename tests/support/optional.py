"""Checks that need something from outside: skipped where it cannot be had, and said so.

What a machine plainly does not have is no defect of ours. What it has and what then fails is one.
Set CI_REQUIRE_ALL=1 where nothing may be skipped.
"""

import os
from collections.abc import Awaitable, Callable

import anyio


class Unavailable(Exception):
    """This machine cannot have what a check needs."""


class InstallFailed(Exception):
    """It could have it, and installing it failed."""


def exit_code(name: str, check: Callable[[], Awaitable[bool]]) -> int:
    """Run a check; say on one line if it was skipped, and return the exit code."""
    try:
        return 0 if anyio.run(check) else 1
    except Unavailable as missing:
        is_required = os.environ.get("CI_REQUIRE_ALL", "") not in ("", "0")
        print(f"{name}: {'FAILED, it may not be skipped' if is_required else 'SKIPPED'}: {missing}")
        return int(is_required)
    except InstallFailed as failure:
        print(f"{name}: FAILED: {failure}")
        return 1
