"""Monitoring as code: the rules derived from load/slo.yaml, and the dashboards."""
