"""`kiro-mcp`: with no argument an MCP server on stdio, else the command line."""

import gc
import sys


def main() -> None:
    """Run the program and end the process."""
    # Looking for garbage in what is being loaded is a tenth of the start. Whatever runs for long
    # goes through `collect_from_here_on`.
    gc.disable()
    # Imported here to keep start-up light: the server needs no command line, nor `--help` mcp.
    try:
        if len(sys.argv) == 1:
            from kiro_mcp.cli.serve import serve_stdio_and_exit

            serve_stdio_and_exit()
        from kiro_mcp.cli.app import run

        run()
    except KeyboardInterrupt:  # While it is still being imported.
        sys.exit(130)


if __name__ == "__main__":
    main()
