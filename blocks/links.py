"""Where in Prefect's UI a person sees what an alert is about.

The address is PREFECT_UI_URL of whoever raises the alert, a worker mostly; else what follows from
its PREFECT_API_URL.
"""

from __future__ import annotations

from prefect.context import FlowRunContext
from prefect.utilities.urls import url_for


def link_to(*, flow_run: str | None = None, deployment: str | None = None) -> str | None:
    """Return the page of a flow run, else of a deployment; None where neither is known."""
    if flow_run:
        return url_for("flow-run", obj_id=flow_run)
    return url_for("deployment", obj_id=deployment) if deployment else None


def link_to_this_run() -> str | None:
    """Return the page of the flow run that asks; None outside of one."""
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    return None if run is None else link_to(flow_run=str(run.id))
