"""Microsoft Entra: an app's access token, and the calls that carry it.

A token is asked for with the app's own secret (client credentials), used until a minute before it
expires, and renewed once where the vendor says that it is no longer valid. Calls side by side share
one renewal.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from kvitt.vendors import exact_json, odata
from kvitt.vendors.http import Address, Call, Http, Purpose, Secret, Unauthorised

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

T = TypeVar("T")

_TOKEN_MARGIN = 60.0


class EntraSettings(BaseModel):
    """An app registration: what a vendor's own settings begin with."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tenant_id: str = Field(pattern=r"^[A-Za-z0-9.-]+$")
    client_id: str
    client_secret: Secret
    login_url: Address = "https://login.microsoftonline.com"


class _NewToken(BaseModel):
    access_token: Secret
    expires_in: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Token:
    """An access token, and until when it is used by our monotonic clock."""

    secret: SecretStr
    until: float


class Entra:
    """One app's way into one vendor. `scope` says what the token is for."""

    def __init__(
        self,
        settings: EntraSettings,
        scope: str,
        http: Http,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._scope = scope
        self._http = http
        self._clock = clock
        self._token: _Token | None = None
        self._renewing = asyncio.Lock()

    async def ask(self, call: Call, read: Callable[[httpx.Response], T]) -> T:
        """Make a call with a token, and once more with a fresh one if it is no longer valid."""
        token = await self._access_token()
        try:
            return await self._ask_once(call, read, token)
        except Unauthorised:
            fresh = await self._access_token(instead_of=token)
            return await self._ask_once(call, read, fresh)

    async def _ask_once(self, call: Call, read: Callable[[httpx.Response], T], token: _Token) -> T:
        headers = {"Authorization": f"Bearer {self._http.conceal(token.secret)}", **call.headers}
        return await self._http.ask(replace(call, headers=headers), read)

    async def _access_token(self, *, instead_of: _Token | None = None) -> _Token:
        """Return a token that is valid still; several calls at a time share one renewal."""
        async with self._renewing:
            token = self._token
            if token is None or token is instead_of or self._clock() >= token.until:
                token = self._token = await self._new_token()
            return token

    async def _new_token(self) -> _Token:
        settings, asked = self._settings, self._clock()
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": self._http.conceal(settings.client_secret),
            "scope": self._scope,
        }
        call = Call(
            what="give an access token",
            purpose=Purpose.TOKEN,
            method="POST",
            url=f"{settings.login_url}/{settings.tenant_id}/oauth2/v2.0/token",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=urlencode(form),
        )

        def judge(reply: httpx.Response) -> _NewToken:
            if reply.is_success:
                return _NewToken.model_validate(exact_json.loads(reply.content))
            raise self._http.verdict(call, odata.complaint_of(reply))

        new = await self._http.ask(call, judge)
        return _Token(secret=new.access_token, until=asked + new.expires_in - _TOKEN_MARGIN)
