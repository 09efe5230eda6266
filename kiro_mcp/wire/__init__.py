"""The wire, pure: bytes and values in, values and bytes out. No await, clock, file or log."""
