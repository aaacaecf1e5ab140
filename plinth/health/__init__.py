"""Readiness probes, and the status of an environment."""
