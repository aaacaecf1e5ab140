"""Grafana's dashboards as code, built with grafana-foundation-sdk and written to monitoring/grafana/dashboards."""
