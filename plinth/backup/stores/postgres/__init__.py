"""Backup and restore of Postgres."""
