"""A Kubernetes cluster through its API, beside Pulumi: asking first, ways in, growing volumes, pods one by one.

`growth.py`, `steps.py` and `leaving.py` are pure and plan; `grow.py` and `roll.py` carry the plans out.
"""
