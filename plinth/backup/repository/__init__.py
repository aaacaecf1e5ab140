"""The restic repository: its sets, its reachability, its output."""
