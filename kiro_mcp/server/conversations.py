"""Conversations, kept so that a later call can continue them."""
