"""Backup and restore of Grafana's database."""
