"""Answers that outlive the call that asked for them."""
