"""Pulumi resources: thin providers over the packages that do the work."""
