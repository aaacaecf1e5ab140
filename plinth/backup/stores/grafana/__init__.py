"""Grafana's database in a backup set."""
