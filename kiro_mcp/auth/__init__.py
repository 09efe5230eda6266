"""Who asks: where a credential comes from, and keeping it fresh."""
