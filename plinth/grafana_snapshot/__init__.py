"""A server beside Grafana that hands out a copy of its database."""
