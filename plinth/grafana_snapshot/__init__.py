"""A server next to Grafana that serves a snapshot of its database."""
