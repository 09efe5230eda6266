"""Progress notifications: how often, and what they say."""
