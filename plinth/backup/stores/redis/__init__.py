"""Backup and restore of Redis."""
