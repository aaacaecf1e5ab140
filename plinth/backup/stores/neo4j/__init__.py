"""Neo4j in a backup set."""
