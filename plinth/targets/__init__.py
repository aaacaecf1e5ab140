"""Targets: what turns services into something that runs."""
