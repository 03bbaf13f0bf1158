"""Many people's answers made one: votes on segments, and whole annotations of one cube."""
