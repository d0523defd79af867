"""Which deposit wallet a key has: one of two addresses, by the generation of the factory that made it.

Both exist in the wild, and the right one is the one with code on chain (polymarket-trading.md 2.3). The relayer says so
without a log-in; Polymarket's own SDK asks it the same.
"""

from __future__ import annotations

import msgspec

from pmkit.clock import Clock
from pmkit.errors import ConfigError
from pmkit.exchanges.polymarket.wallets import Wallets
from pmkit.http import HttpSession


class _Deployed(msgspec.Struct, frozen=True):
    deployed: bool


class DepositWallets:
    """Asks the relayer. Nothing connects before the first call."""

    def __init__(self, relayer_url: str, clock: Clock) -> None:
        self._http = HttpSession(relayer_url, clock, allow=(("GET", "/deployed"),))

    async def close(self) -> None:
        """May be called twice."""
        await self._http.close()

    async def find(self, wallets: Wallets) -> str:
        """The only deposit wallet of a key that is on chain. Raises ConfigError where none is, or both are; and what
        the query raises."""
        there = [address for address in (wallets.deposit_beacon, wallets.deposit_uups) if await self._there(address)]
        if len(there) == 1:
            return there[0]
        both = f"{wallets.deposit_beacon}, or {wallets.deposit_uups} of an older factory"
        if there:
            raise ConfigError(
                f"both deposit wallets of {wallets.owner} are on chain ({both}): set POLYMARKET_FUNDER_ADDRESS to the "
                "one that holds the funds"
            )
        raise ConfigError(
            f"no deposit wallet of {wallets.owner} is on chain yet (it would be {both}): make it on polymarket.com, by "
            "a first trade there; where this key trades for the wallet of another one, set POLYMARKET_FUNDER_ADDRESS"
        )

    async def _there(self, address: str) -> bool:
        return (await self._http.get_json("/deployed", _Deployed, {"address": address, "type": "WALLET"})).deployed
