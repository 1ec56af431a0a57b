"""Who may see and say where an account's notices go."""

from aiohttp import web

from accounts import Authenticator, require_account, require_whole_account
from ledger import Ledger


class Permission:
    """Both methods give the account, and raise ApiError when the request has no right to it."""

    def __init__(self, ledger: Ledger, authenticator: Authenticator) -> None:
        self._ledger = ledger
        self._authenticator = authenticator

    async def to_see(self, request: web.Request) -> str:
        return require_account(await self._authenticator.authenticate(request))

    async def to_change(self, request: web.Request) -> str:
        """As to make keys: whoever logs in, or has a key without limits."""
        return await require_whole_account(await self._authenticator.authenticate(request), self._ledger)
