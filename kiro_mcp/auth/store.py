"""Our own credential store on disk, and the stores of other tools that we may read."""
