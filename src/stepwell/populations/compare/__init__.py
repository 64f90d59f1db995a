"""`compare`: several values of keys, each with the same seeds, and what may be said of the difference."""
