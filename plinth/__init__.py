"""Plinth: deploy, verify and operate a Qdrant-based vector stack."""
