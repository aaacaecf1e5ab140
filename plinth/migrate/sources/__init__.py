"""The stores that points come from, each behind the same protocol."""
