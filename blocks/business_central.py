"""A company in Microsoft Dynamics 365 Business Central."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from kvitt.domain.integrations import Timeouts
from kvitt.health import TIMEOUTS
from kvitt.vendors import business_central as vendor
from kvitt.vendors.http import ONCE

if TYPE_CHECKING:
    from kvitt.domain.integrations import Integration
    from kvitt.ports import Budget
    from kvitt.vendors.http import Line


class BusinessCentral(Block):
    """A company in Business Central, and the app registration that may write into it.

    Example:
        Load it, and ask whether the company can be reached with it:

        ```python
        from blocks import BusinessCentral

        connection = BusinessCentral.load("BLOCK_NAME")
        print(await connection.check())
        ```
    """

    _block_type_name = "Business Central (kvitt)"
    _block_type_slug = "kvitt-business-central"
    _description = "A company in Microsoft Dynamics 365 Business Central, reached by its API v2.0."
    _documentation_url = HttpUrl(
        "https://learn.microsoft.com/dynamics365/business-central/dev-itpro/administration/"
        "automation-apis-using-s2s-authentication"
    )

    tenant_id: str = Field(default=..., description="The Entra tenant's id.")
    environment: str = Field(
        default="production", description="The environment's name, like production or sandbox."
    )
    company_id: str = Field(default=..., description="The company's id in Business Central.")
    client_id: str = Field(default=..., description="The app registration's client id.")
    client_secret: SecretStr = Field(
        default=..., description="The app registration's client secret."
    )
    api_url: str = Field(
        default="https://api.businesscentral.dynamics.com",
        title="API URL",
        description="Where the API is; another one for a sovereign cloud.",
    )
    login_url: str = Field(
        default="https://login.microsoftonline.com",
        title="Login URL",
        description="Where tokens come from; another one for a sovereign cloud.",
    )
    scope: str = Field(
        default="https://api.businesscentral.dynamics.com/.default",
        description="The scope that a token is asked for.",
    )

    def open_for(self, integration: Integration, budget: Budget) -> vendor.BusinessCentral:
        """Return the client of an integration: an async context manager, no request made yet."""
        return vendor.BusinessCentral(self._settings(), integration.timeouts, budget=budget)

    def open_to_probe(self, budget: Budget, line: Line) -> vendor.BusinessCentral:
        """Return a client that asks once, over a line that it shares with others."""
        return vendor.BusinessCentral(
            self._settings(), TIMEOUTS, patience=ONCE, budget=budget, line=line
        )

    async def check(self) -> str:
        """Ask for a sign of life, at the cost of a token and a request that no budget counts.

        Raises VendorError, which says what is wrong.
        """
        async with vendor.BusinessCentral(self._settings(), Timeouts()) as client:
            await client.probe()
        return f"company {self.company_id} in {self.environment} answers"

    def _settings(self) -> vendor.BusinessCentralSettings:
        fields = vendor.BusinessCentralSettings.model_fields
        return vendor.BusinessCentralSettings.model_validate(
            {name: getattr(self, name) for name in fields}
        )
