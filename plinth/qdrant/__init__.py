"""Qdrant through its API: collection specs, plans and their execution. Free of Pulumi."""
