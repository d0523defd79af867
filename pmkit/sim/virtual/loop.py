"""`VirtualLoop`: asyncio's own loop on which time jumps to the next timer, and a network in memory.

What is kept of a real loop: callbacks run in order, timers in the order of their moments (and of their making where
those are equal), everything of asyncio works. What differs: code takes no time; there are no sockets, no processes and
no signals; names but `localhost` do not resolve. Work in an executor runs in real threads: time stands still until it
is done, and results come back in the order in which the work was given, so that a run does not depend on the machine.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
import math
import socket
import threading
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, TypeVar

from pmkit.clock import Entropy
from pmkit.sim.virtual.pipes import PipeTransport, join
from pmkit.sim.virtual.servers import PipeServer
from pmkit.sim.virtual.sockets import PipeSocket, Readability

T = TypeVar("T")

HOST = "127.0.0.1"
LOOPBACK = frozenset({HOST, "localhost", "0.0.0.0", "", None})
FIRST_PORT = 20_000
START = 1_000.0
"""Where the monotonic time of a loop starts, in seconds; any number that is not 0 does."""
TURNS_PER_MOMENT = 2_000_000
STUCK_WALL_SECONDS = 10.0
JOB_WALL_SECONDS = 1.0
RESOLUTION = 1e-9
CANCELLED_TIMERS = 200


class Stuck(RuntimeError):
    """Nothing can happen any more (no timer, nothing ready), or the same moment never ends."""


class _Handle(asyncio.Handle):
    """asyncio's, made in one call: a virtual second makes dozens of them, and nothing else in it takes time."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: Sequence[Any], loop: VirtualLoop, context: Any) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _TimerHandle(asyncio.TimerHandle):
    """As `_Handle`, in the heap until it fires."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Callable[..., object], args: Sequence[Any], loop: VirtualLoop, context: Any
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        if self._cancelled:
            return
        if self._scheduled:
            self._loop._timer_cancelled_count += 1
        super(asyncio.TimerHandle, self).cancel()


class VirtualLoop(asyncio.BaseEventLoop):
    """`latency` is what a segment takes from one end of a connection to the other, in seconds; with `jitter` each takes
    up to that much longer, drawn from `seed`, and never overtakes the one before it. `opened` counts connections,
    `refused` the attempts that found nobody listening, `jumps` how often time moved. `tape`, where it is a list, gets
    (moment, sender's port, receiver's port, bytes) of everything sent: two runs with the same tape did the same.
    """

    def __init__(self, *, seed: int | str = 0, latency: float = 0.0, jitter: float = 0.0) -> None:
        super().__init__()
        self.moment = START
        """Virtual seconds that never go back."""
        self._numbers = itertools.count()
        self._wake = threading.Event()
        self._jobs: deque[tuple[Future[Any], asyncio.Future[Any]]] = deque()
        self._threads: Executor | None = None
        self._servers: dict[int, PipeServer] = {}
        self._ports = itertools.count(FIRST_PORT)
        self._turns = 0
        self._random = Entropy(seed)
        self.latency = latency
        self.jitter = jitter
        self.readability = Readability()
        self.opened = 0
        self.refused = 0
        self.jumps = 0
        self.tape: list[tuple[float, int, int, int]] | None = None

    # ---- time

    def time(self) -> float:
        return self.moment

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if self._debug or self._closed:  # type: ignore[attr-defined]
            return super().call_soon(callback, *args, context=context)
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._check_closed()  # type: ignore[attr-defined]
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, (when, next(self._numbers), timer))  # type: ignore[attr-defined]
        return timer

    async def sleep(self, seconds: float) -> None:
        """`asyncio.sleep` in fewer calls: most of what a virtual second does is to sleep."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        passed = self.create_future()
        timer = self.call_at(self.moment + seconds, _wake, passed)
        try:
            await passed
        finally:
            timer.cancel()

    def _run_once(self) -> None:
        """One turn: asyncio's own, with time that moves in place of a selector that waits. The heap holds tuples:
        timers of the same moment fire in the order in which they were made, and nothing of Python compares them.
        """
        timers: list[tuple[float, int, Any]] = self._scheduled  # type: ignore[attr-defined]
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        if self._timer_cancelled_count > CANCELLED_TIMERS:  # type: ignore[has-type]
            timers[:] = [entry for entry in timers if not entry[2]._cancelled]
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)[2]._scheduled = False
            self._timer_cancelled_count -= 1
        if ready or self._stopping:  # type: ignore[attr-defined]
            self._turn()
        else:
            self._idle(max(0.0, timers[0][0] - self.moment) if timers else None)
        # After half a year a step of the numbers is larger than the resolution, and what is due now must be due.
        now = max(self.moment + RESOLUTION, math.nextafter(self.moment, math.inf))
        while timers and timers[0][0] < now:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                # What `handle._run()` does, without the call.
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._failed(handle, error)

    def _failed(self, handle: Any, error: BaseException) -> None:
        context = {"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle}
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _turn(self) -> None:
        """Something is ready: time stands still."""
        self._turns += 1
        if self._turns > TURNS_PER_MOMENT:
            raise Stuck(f"{self._turns} turns of the loop at the same moment: {self._restless()} never rests")

    def _restless(self) -> str:
        """What is ready, or due, in the words of its handle."""
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        timers: list[tuple[float, int, Any]] = self._scheduled  # type: ignore[attr-defined]
        return "; ".join(repr(handle) for handle in [*ready, *(entry[2] for entry in timers[:1])][:3]) or "something"

    def at(self, moment: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back at that moment, now where it has passed."""
        if moment <= self.moment:
            self.call_soon(callback, *args)
        else:
            self.call_at(moment, callback, *args)

    def flight(self) -> float:
        """How long the next segment is under way."""
        return self.latency + (self._random.random() * self.jitter if self.jitter else 0.0)

    def _idle(self, timeout: float | None) -> None:
        """Time moves, or a thread is waited for. `timeout`: seconds to the next timer, None where there is none."""
        self._turn()
        if timeout is not None and timeout <= 0:
            return
        if self._jobs:
            self._finish_a_job()
            return
        if self._wake.is_set():
            self._wake.clear()
            if self._ready:  # type: ignore[attr-defined]
                return
        if timeout is None:
            # Only another thread can wake us now.
            if not self._wake.wait(STUCK_WALL_SECONDS):
                raise Stuck("nothing is ready, no timer is set, and no thread has called: this would wait for ever")
            self._wake.clear()
            return
        self._turns = 0
        self.jumps += 1
        self.moment = max(self.moment, self._scheduled[0][0])  # type: ignore[attr-defined]

    def _write_to_self(self) -> None:
        self._wake.set()

    # ---- threads

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        self._check_closed()  # type: ignore[attr-defined]
        if executor is None:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(4, thread_name_prefix="virtual")
            executor = self._threads
        job = executor.submit(func, *args)
        waiter: asyncio.Future[T] = self.create_future()
        self._jobs.append((job, waiter))
        job.add_done_callback(lambda _: self._wake.set())
        return waiter

    def _finish_a_job(self) -> None:
        """Wait for the oldest; where it takes long, perhaps it waits for a younger one: then for any."""
        self._wake.clear()
        if not self._jobs[0][0].done():
            self._wake.wait(JOB_WALL_SECONDS)
            if self._ready:  # type: ignore[attr-defined]  # a thread has called something
                return
        for job in [self._jobs[0], *self._jobs]:
            if job[0].done():
                self._jobs.remove(job)
                _hand_over(*job)
                return

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True)

    # ---- the network

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOOPBACK:
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known (virtual time knows no {name!r})")
        if family not in (0, socket.AF_INET):
            raise socket.gaierror(socket.EAI_NONAME, "Address family for hostname not supported")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (HOST, int(port or 0)))]

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        return str(sockaddr[0]), str(sockaddr[1])

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: Any = None,
        local_addr: Any = None,
        **_timing: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        if ssl or sock is not None:
            raise NotImplementedError("virtual time has neither TLS nor real sockets")
        ((_, _, _, _, address),) = await self.getaddrinfo(host, port, family=family)
        await self.sleep(2 * self.flight())
        server = self._servers.get(address[1])
        if server is None:
            self.refused += 1
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address}")
        protocol = protocol_factory()
        here = PipeTransport(self, PipeSocket((HOST, next(self._ports)), address), protocol)
        there = PipeTransport(self, PipeSocket(address, here.sock.name), server.make_protocol(), server)
        join(here, there)
        self.opened += 1
        self.call_soon(there.connected)
        here.connected()
        await self.sleep(0.0)
        return here, protocol

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        start_serving: bool = True,
        **_options: Any,
    ) -> PipeServer:
        if ssl or sock is not None:
            raise NotImplementedError("virtual time has neither TLS nor real sockets")
        for name in [host] if host is None or isinstance(host, str) else host:
            await self.getaddrinfo(name, port)
        number = port or next(free for free in self._ports if free not in self._servers)
        server = PipeServer(self, protocol_factory, PipeSocket((HOST, number), None))
        if number in self._servers:
            raise OSError(
                errno.EADDRINUSE, f"error while attempting to bind on address ('{HOST}', {number}): in use already"
            )
        if start_serving:
            server.listen()
        return server

    def listen(self, server: PipeServer) -> None:
        """From now on that server answers its port."""
        self._servers[server.port] = server

    def listens(self, server: PipeServer) -> bool:
        return self._servers.get(server.port) is server

    def unlisten(self, server: PipeServer) -> None:
        if self.listens(server):
            del self._servers[server.port]

    def close(self) -> None:
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        super().close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None
        self.readability.close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _hand_over(job: Future[Any], waiter: asyncio.Future[Any]) -> None:
    if waiter.done():
        return
    if job.cancelled():
        waiter.cancel()
    elif (error := job.exception()) is not None:
        waiter.set_exception(error)
    else:
        waiter.set_result(job.result())


def run(main: Coroutine[Any, Any, T], *, seed: int | str = 0, latency: float = 0.0, jitter: float = 0.0) -> T:
    """`asyncio.run` in virtual time."""
    make: Callable[[], events.AbstractEventLoop] = lambda: VirtualLoop(seed=seed, latency=latency, jitter=jitter)  # noqa: E731
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(main)
