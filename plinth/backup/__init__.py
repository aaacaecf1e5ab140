"""Backups, and what they leave behind for monitoring."""
