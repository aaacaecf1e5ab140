"""Backup and restore of Neo4j."""
