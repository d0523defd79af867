"""The live candles against the local Binance, in virtual time."""

import itertools

from pmkit.clock import Entropy
from pmkit.data.binance.feed import BinanceFeed
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run


def test_rs_02_a_gap_waits_for_the_end_of_a_short_ban_and_is_filled():
    async def main():
        clock = VirtualClock(1_795_176_000_000, Entropy(1))
        async with LocalVenues(seed=3, assets=("BTC",), clock=clock, steps_per_wall_second=0.1) as venues:
            feed = BinanceFeed(venues.endpoints, clock, ["BTCUSDT"], interval="1s", size=100)
            async with feed:
                await clock.sleep(10)
                venues.binance.faults.refuse(418, retry_after=9, path="klines")
                venues.binance.faults.drop_connections()
                await clock.sleep(30)
                assert venues.binance.faults.counts["refused"] == 1, "nothing is asked while the ban lasts"
                assert feed.gaps("BTCUSDT") == []
                times = [candle.timestamp for candle in feed.candles("BTCUSDT")]
                assert all(two - one == 1000 for one, two in itertools.pairwise(times))
                assert clock.now_ms() - times[-1] < 3000

    run(main(), latency=0.005)
