"""The process that makes one check against a caller's schema: JSON in, JSON out, with limits."""

import json
import sys
from typing import Any, Final

from kiro_mcp.wire.schema_check import UnusableSchemaError, check_slowly

CPU_SECONDS: Final = 4
"""How long it may compute if the server dies and cannot kill it."""
MEMORY_BYTES: Final = 1024**3


def main() -> None:
    """Read a check from standard input and write its result to standard output."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    asked: dict[str, Any] = json.load(sys.stdin.buffer)
    try:
        found: Any = {"errors": check_slowly(asked["schema"], asked["values"], name=asked["name"])}
    except UnusableSchemaError as error:
        found = {"unusable": str(error)}
    with open(1, "w", encoding="utf-8") as output:
        json.dump(found, output)


if __name__ == "__main__":
    main()
