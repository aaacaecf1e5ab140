"""Qdrant from outside: collection specs, plans and how they are carried out. No Pulumi here."""
