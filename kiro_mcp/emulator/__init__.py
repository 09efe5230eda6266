"""A stand-in for the Kiro service on loopback: for `--offline`, for tests, for users' CI."""
