"""Back up and restore the stores, and record each run for monitoring."""
