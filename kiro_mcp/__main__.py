"""`kiro-mcp`: with no argument an MCP server on stdio, else the command line."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the program and end the process."""
    # Imported here to keep start-up light: the server needs no command line, nor `--help` mcp.
    if len(sys.argv) == 1:
        from kiro_mcp.cli.serve import serve_stdio_and_exit

        serve_stdio_and_exit()
    from kiro_mcp.cli.app import run

    run()


if __name__ == "__main__":
    main()
