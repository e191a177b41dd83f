"""An entity in Xledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from kvitt.domain.integrations import Timeouts
from kvitt.health import TIMEOUTS
from kvitt.vendors import xledger as vendor
from kvitt.vendors.http import ONCE

if TYPE_CHECKING:
    from kvitt.domain.integrations import Integration
    from kvitt.ports import Budget
    from kvitt.vendors.http import Line


class Xledger(Block):
    """An entity in Xledger, and the token that may import into it.

    Example:
        Load it, and ask whether Xledger takes the token:

        ```python
        from blocks import Xledger

        connection = Xledger.load("BLOCK_NAME")
        print(await connection.check())
        ```
    """

    _block_type_name = "Xledger (kvitt)"
    _block_type_slug = "kvitt-xledger"
    _description = "An entity in Xledger, reached by its GraphQL API."
    _documentation_url = HttpUrl("https://xledger.com")

    token: SecretStr = Field(default=..., description="The API token, bound to the entity.")
    api_url: str = Field(
        default="https://www.xledger.net/graphql",
        title="API URL",
        description="Where the API is; https://demo.xledger.net/graphql for a demo.",
    )
    filter_by_reference: bool = Field(
        default=False,
        description="Read rows back by extIdentifier, where the tenant's schema can filter by it.",
    )

    all_or_nothing: bool = Field(
        default=False,
        description="One bad node was seen to refuse all of its mutation (kvitt facts): then what "
        "is refused is set aside at once, without waiting and reading back.",
    )

    def open_for(self, integration: Integration, budget: Budget) -> vendor.Xledger:
        """Return the client of an integration: an async context manager, no request made yet."""
        return vendor.Xledger(self._settings(), integration.timeouts, budget=budget)

    def open_to_probe(self, budget: Budget, line: Line) -> vendor.Xledger:
        """Return a client that asks once, over a line that it shares with others."""
        return vendor.Xledger(self._settings(), TIMEOUTS, patience=ONCE, budget=budget, line=line)

    async def check(self) -> str:
        """Ask for a sign of life, at the cost of one request that no budget counts.

        Raises VendorError, which says what is wrong.
        """
        async with vendor.Xledger(self._settings(), Timeouts()) as client:
            await client.probe()
        return f"{self.api_url} answers"

    def _settings(self) -> vendor.XledgerSettings:
        return vendor.XledgerSettings(
            token=self.token,
            api_url=self.api_url,
            filter_by_reference=self.filter_by_reference,
            all_or_nothing=self.all_or_nothing,
        )
