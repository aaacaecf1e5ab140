"""Moving points from another store into a collection, so that nothing is lost and it can be shown."""
