"""Deployments and automations as data, and the code that brings Prefect into line with them.

The deployments that never change (the flow `watch`) are in prefect.yaml; the ones that follow the
integrations table are made here.
"""
