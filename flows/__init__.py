"""Prefect flows, thin: the way of a period (`kvitt.sync`) becomes runs and tasks here."""
