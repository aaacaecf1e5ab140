"""A Kubernetes cluster through its API, without Pulumi: preflight, port-forwards, volumes, rolling updates.

`removed_services.py`, `rolling_update_plan.py` and `volume_expansion_plan.py` are pure and plan; `rolling_update.py`
and `volume_expansion.py` execute the plans.
"""
