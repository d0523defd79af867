"""Claim everything that was won on Polymarket: list it, ask, redeem, report.

    python examples/redeem_all.py           needs POLYMARKET_PRIVATE_KEY (.env); a deposit wallet also a relayer key
    python examples/redeem_all.py --list    only list; needs POLYMARKET_FUNDER_ADDRESS and no key
    python examples/redeem_all.py --yes     without asking

Safe to run twice and while a bot trades: what the chain says decides, and a second run finds nothing left to do. Exits
with 0 where everything was redeemed (or nothing was there), with 1 where something needs a look.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from decimal import Decimal

from pmkit.bot.venues import live_exchange
from pmkit.clock import Clock
from pmkit.config.env import Settings
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, NotYetRedeemable, PmkitError
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.redeem_types import RedeemPreview, RedeemResult, RedeemStatus
from pmkit.exchanges.polymarket.redeem_view import RedeemView
from pmkit.prompts.inquirer import confirm


def line(seen: RedeemPreview) -> str:
    """One market of the list."""
    held = ", ".join(f"{holding.size} {holding.outcome}" for holding in seen.holdings if holding.size)
    if not seen:
        return f"  {'-':>12}       {seen.market}: {held}: {seen.reason}"
    way = f"{seen.path}" + (", approval first" if seen.approval else "")
    gas = f", gas up to {seen.gas_cost:.4f} POL" if seen.gas else ""
    return f"  {seen.payout:>12} pUSD  {seen.market}: {held} ({way}{gas})"


def show(found: Sequence[RedeemPreview], unreadable: dict[str, str]) -> Decimal:
    """Print what there is. Returns the pUSD that can be claimed."""
    for seen in found:
        print(line(seen))
    for condition_id, reason in unreadable.items():
        print(f"  {'?':>12}       {condition_id}: {reason}")
    total = sum((seen.payout for seen in found if seen), Decimal(0))
    print(f"  {total:>12} pUSD  in {sum(map(bool, found))} market(s)")
    return total


async def redeem_all(exchange: PolymarketExchange, yes: bool) -> int:
    """List, ask, redeem one after the other, report. Returns the exit code."""
    await exchange.prepare_redeem()
    found = await exchange.redeemable()
    total = show(found, exchange.unredeemable)
    if not total:
        return 1 if exchange.unredeemable else 0
    if not yes and not confirm(f"Redeem {total} pUSD?", "use --yes"):
        print("Nothing was sent.")
        return 0
    results: list[RedeemResult] = []
    errors = 0
    for seen in filter(None, found):
        try:
            done = await exchange.redeem(seen.condition_id)
        except NotYetRedeemable as error:
            errors += 1
            print(f"not yet     {seen.market}: {error.reason}")
            continue
        except PmkitError as error:
            errors += 1
            print(f"failed      {seen.market}: {error}")
            continue
        results.append(done)
        print(f"{done.status:<11} {done.market}: {done.reason}")
    paid = sum((done.payout for done in results if done), Decimal(0))
    gas = sum((done.gas_cost for done in results), Decimal(0))
    print(f"{paid} pUSD redeemed, {gas:.4f} POL spent on gas")
    open_ones = [done for done in results if done.status is RedeemStatus.UNVERIFIED]
    if open_ones:
        print(f"{len(open_ones)} not verified: run this again in some minutes, it looks first")
    return 1 if errors or open_ones or exchange.unredeemable else 0


async def list_only(endpoints: Endpoints, clock: Clock, settings: Settings) -> int:
    """What a wallet could redeem, without any key."""
    if settings.polymarket_funder_address is None:
        raise ConfigError("--list needs POLYMARKET_FUNDER_ADDRESS, the wallet that holds the shares")
    async with (
        PolymarketMarketData(endpoints, clock) as data,
        RedeemView(
            data,
            settings.polymarket_funder_address,
            signature_type=settings.polymarket_signature_type,
            rpc_url=settings.polygon_rpc_url,
        ) as view,
    ):
        show(await view.redeemable(), view.unreadable)
        return 1 if view.unreadable else 0


async def main(settings: Settings, options: Sequence[str]) -> int:
    endpoints = Endpoints.real()
    clock = endpoints.make_clock()
    if "--list" in options:
        return await list_only(endpoints, clock, settings)
    exchange = live_exchange("polymarket", endpoints, clock, settings, None)
    assert isinstance(exchange, PolymarketExchange)
    async with exchange:
        return await redeem_all(exchange, "--yes" in options)


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - {"--list", "--yes"}:
        sys.exit(f"unknown: {' '.join(sorted(unknown))}\n\n{__doc__}")
    try:
        loaded = Settings.load()
        logging.getLogger("pmkit").setLevel(loaded.log_level)
        sys.exit(asyncio.run(main(loaded, sys.argv[1:])))
    except PmkitError as error:
        sys.exit(str(error))
