"""Virtual time: an event loop on which time jumps when nothing is ready, with connections in memory.

httpx, websockets, aiohttp and asyncio's own streams run on it unchanged: whole bots on whole local venues pass through
a quarter of an hour in a fraction of a second. `run(main())` is `asyncio.run` on it; `VirtualClock()` tells its time.
"""

from pmkit.sim.virtual.clock import VirtualClock
from pmkit.sim.virtual.loop import Stuck, VirtualLoop, run

__all__ = ["Stuck", "VirtualClock", "VirtualLoop", "run"]
