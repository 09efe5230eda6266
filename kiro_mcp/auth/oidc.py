"""The requests of sign-in and refresh, sent."""
