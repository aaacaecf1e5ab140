"""Plinth: the base that a vector stack stands on."""
