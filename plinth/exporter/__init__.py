"""Plinth's own exporter: metrics that Qdrant and the stores do not export (see monitoring/runbooks)."""
