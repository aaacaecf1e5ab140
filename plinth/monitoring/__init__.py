"""Monitoring as code: the rules that follow from load/slo.yaml, and the dashboards."""
