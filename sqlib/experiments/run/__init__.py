"""Running: what is planned, found, computed and recomputed."""
