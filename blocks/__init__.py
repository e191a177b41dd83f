"""Prefect blocks: what kvitt connects to, with secrets kept by Prefect.

Register them once with `prefect block register --module blocks`; they then show in the UI.
"""

from blocks.business_central import BusinessCentral
from blocks.dataverse import Dataverse
from blocks.supabase_project import SupabaseProject
from blocks.task_results import TaskResults
from blocks.xledger import Xledger

__all__ = ["BusinessCentral", "Dataverse", "SupabaseProject", "TaskResults", "Xledger"]
