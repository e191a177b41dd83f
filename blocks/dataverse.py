"""A table of journal lines in a Microsoft Dataverse environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from kvitt.domain.integrations import Timeouts
from kvitt.health import TIMEOUTS
from kvitt.vendors import dataverse as vendor
from kvitt.vendors.http import ONCE

if TYPE_CHECKING:
    from kvitt.domain.integrations import Integration
    from kvitt.ports import Budget
    from kvitt.vendors.http import Line


class Dataverse(Block):
    """A table of journal lines in Dataverse, and the app registration that may write into it.

    Example:
        Load it, and ask whether the table can be reached with it:

        ```python
        from blocks import Dataverse

        connection = Dataverse.load("BLOCK_NAME")
        print(await connection.check())
        ```
    """

    _block_type_name = "Dataverse (kvitt)"
    _block_type_slug = "kvitt-dataverse"
    _description = "A table of journal lines in Microsoft Dataverse, reached by its Web API."
    _documentation_url = HttpUrl(
        "https://learn.microsoft.com/power-apps/developer/data-platform/"
        "use-single-tenant-server-server-authentication"
    )

    tenant_id: str = Field(default=..., description="The Entra tenant's id.")
    api_url: str = Field(
        default=...,
        title="Environment URL",
        description="The environment's address, like https://contoso.crm4.dynamics.com.",
    )
    client_id: str = Field(default=..., description="The app registration's client id.")
    client_secret: SecretStr = Field(
        default=..., description="The app registration's client secret."
    )
    table: str = Field(
        default="kvitt_journalline", description="The logical name of the table of journal lines."
    )
    entity_set: str = Field(
        default="kvitt_journallines", description="The table's entity set name."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Logical names of columns that are not kvitt_..., like "
        '{"account": "contoso_account"}.',
    )
    login_url: str = Field(
        default="https://login.microsoftonline.com",
        title="Login URL",
        description="Where tokens come from; another one for a sovereign cloud.",
    )
    scope: str | None = Field(
        default=None,
        description="The scope that a token is asked for; none: the environment's own.",
    )

    def open_for(self, integration: Integration, budget: Budget) -> vendor.Dataverse:
        """Return the client of an integration: an async context manager, no request made yet."""
        return vendor.Dataverse(self._settings(), integration.timeouts, budget=budget)

    def open_to_probe(self, budget: Budget, line: Line) -> vendor.Dataverse:
        """Return a client that asks once, over a line that it shares with others."""
        return vendor.Dataverse(self._settings(), TIMEOUTS, patience=ONCE, budget=budget, line=line)

    async def check(self) -> str:
        """Ask for a sign of life, at the cost of a token and a request that no budget counts.

        Raises VendorError, which says what is wrong.
        """
        async with vendor.Dataverse(self._settings(), Timeouts()) as client:
            await client.probe()
        return f"table {self.table} in {self.api_url} answers"

    def _settings(self) -> vendor.DataverseSettings:
        fields = vendor.DataverseSettings.model_fields
        return vendor.DataverseSettings.model_validate(
            {name: getattr(self, name) for name in fields}
        )
