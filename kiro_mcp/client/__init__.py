"""The way to the service: where it is, what its refusals mean, and the client."""
