"""Backup and restore of Qdrant."""
