"""Pulumi resources: thin providers over the rooms that do the work."""
