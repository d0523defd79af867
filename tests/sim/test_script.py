"""The fault script: one seed is one list, every fault can be begun and is over at the end."""

import asyncio
from contextlib import suppress

import pytest

from pmkit.clock import Entropy
from pmkit.errors import ConfigError
from pmkit.sim.fault_kinds import KINDS
from pmkit.sim.proxies import Proxies
from pmkit.sim.script import FaultScript, Step, draw_script, read_script, text
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run


def test_a_seed_is_a_script_that_can_be_written_down_and_read_again():
    one = draw_script(7, seconds=400)
    assert one == draw_script(7, seconds=400) != draw_script(8, seconds=400)
    assert read_script(text(one)) == one
    for step in one:
        assert step.at + float(step.parameters.get("seconds", 0)) <= 400
    with pytest.raises(ConfigError):
        read_script("[1, 2]")


def test_every_fault_of_the_table_does_something_and_is_undone():
    async def main():
        clock = VirtualClock(1_795_176_000_000, Entropy(1))
        kinds = enumerate(KINDS.values())
        steps = [Step(1.0 + place, kind.name, kind.draw(Entropy(kind.name))) for place, kind in kinds]
        moved = []
        async with (
            LocalVenues(seed=1, assets=("BTC",), clock=clock, steps_per_wall_second=0.1) as venues,
            Proxies(venues.endpoints, clock) as proxies,
            FaultScript(steps, venues, proxies, clock, moved.append) as script,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxies.of("kalshi")[0].port)
            await script.done()
            assert set(script.counts) == set(KINDS) and len(KINDS) > 50
            assert sum(moved) == 0 and len(moved) == 2
            assert not any(venue.faults.silent for venue in venues.venues) and not venues.kalshi.paused
            assert not any(proxy.black_hole or proxy.latency or proxy.slice_bytes for proxy in proxies.all)
            with suppress(ConnectionResetError):  # the cut that was drawn may be either
                assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", proxies.of("kalshi")[0].port)
            writer.write(b"GET /trade-api/v2/exchange/status HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read(100)).startswith(b"HTTP/1.1 200")
            writer.close()
            assert venues.failures == []

    run(main())


def test_an_unknown_fault_is_named():
    async def main():
        async with LocalVenues(seed=1, assets=("BTC",), clock=VirtualClock()) as venues:
            with pytest.raises(ConfigError, match="no fault earthquake"):
                FaultScript([Step(1.0, "earthquake")], venues, None, venues.clock)

    run(main())
