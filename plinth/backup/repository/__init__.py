"""The restic repository: its sets, its reachability, and the output of restic."""
