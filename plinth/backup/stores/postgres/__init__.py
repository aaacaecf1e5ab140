"""Postgres in a backup set."""
