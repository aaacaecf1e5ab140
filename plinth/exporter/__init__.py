"""Plinth's own exporter: what Qdrant and the stores do not tell (monitoring/runbooks has what follows from it)."""
