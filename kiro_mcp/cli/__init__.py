"""The command line. The only place in the package that prints."""
