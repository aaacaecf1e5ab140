"""Move points from another store into a collection without loss, and prove it."""
