"""The start of the bundle; all the rest is the package that pyproject.toml names."""

from kiro_mcp.__main__ import main

main()
