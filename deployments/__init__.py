"""Automations as data, what the deployments stand on, and the code that brings Prefect into line.

The deployments that never change are in prefect.yaml; the ones that follow the integrations table
are made by `flows/deployments.py`, which `watch` calls as well. `checkpoint` looks whether all of
it is there, and works together.
"""
