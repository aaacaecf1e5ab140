"""Qdrant in a backup set."""
