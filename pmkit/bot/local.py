"""The local venues as a child process: started when the user chose `local`, ended with the bot."""

from __future__ import annotations

import asyncio
import signal
import sys
from types import TracebackType

import msgspec

from pmkit.clock import SystemClock
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError

START_SECONDS = 30.0
END_SECONDS = 1.5


class KalshiKey(msgspec.Struct, frozen=True):
    """A throwaway key that the local Kalshi venue made for this run. Worth nothing anywhere else."""

    id: str
    pem: str


class PolymarketAccount(msgspec.Struct, frozen=True):
    """A funded account of the local Polymarket, with its throwaway key."""

    private_key: str
    funder: str
    signature_type: int


class LocalLine(msgspec.Struct, frozen=True):
    """The line that `python -m pmkit.sim` prints."""

    endpoints: Endpoints
    kalshi_key: KalshiKey
    polymarket_account: PolymarketAccount

    @property
    def secrets(self) -> list[str]:
        """What must not be printed, throwaway or not."""
        return [self.kalshi_key.pem, self.polymarket_account.private_key]


class LocalProcess:
    """`async with LocalProcess(speed=15) as line:` serves all local venues until the block ends.

    `speed` is how much faster than the wall market time passes. The child ends when this process does, in whatever
    way: it watches its standard input. Raises ConfigError where it does not start.
    """

    def __init__(
        self, *, assets: tuple[str, ...], speed: float, seed: int, first_boundary: float | None = None
    ) -> None:
        self._settings = {
            "assets": list(assets),
            "factor": speed,
            "seed": seed,
            "first_boundary_wall_seconds": first_boundary,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._clock = SystemClock()

    async def __aenter__(self) -> LocalLine:
        # A session of its own: Ctrl-C in the terminal reaches the bot, which then ends the venues after its own
        # clean-up.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pmkit.sim",
            msgspec.json.encode(self._settings).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        try:
            async with self._clock.io_timeout(START_SECONDS):
                line = await self._process.stdout.readline()
            return msgspec.json.decode(line, type=LocalLine)
        except TimeoutError as error:
            await self._end()
            raise ConfigError(f"the local venues said nothing for {START_SECONDS:.0f} s after their start") from error
        except (msgspec.DecodeError, ValueError) as error:
            await self._end()
            raise ConfigError("the local venues did not start; what they printed on the terminal says why") from error
        except BaseException:
            await self._end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        for last_word in (signal.SIGTERM, signal.SIGKILL, None):
            try:
                async with self._clock.io_timeout(END_SECONDS):
                    await process.wait()
                return
            except TimeoutError:
                if last_word is not None:
                    process.send_signal(last_word)
