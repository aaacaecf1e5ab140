"""Temporary stores, for a drill and for reading a saved Redis."""
