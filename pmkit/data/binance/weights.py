"""`WeightBudget`: how much request weight may still be spent. Counts only; the clock is read by whoever asks.

The venue counts per IP and minute, all processes together, and says so in `X-MBX-USED-WEIGHT-1M`. Whether its minute is
the calendar's or slides is not known, so our own spending is held to a share of the limit in every 60 seconds, and
nothing is sent while the IP as a whole is above 80 %. When the venue counts a request is not known either, but that it
is before its answer: a request counts here from when it is sent until 60 seconds after it was answered.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MINUTE_SECONDS: Final = 60.0
UNREAD_LIMIT: Final = 1_200
"""Assumed until `exchangeInfo` was read. The venue's limit has never been lower; since 2023-08-25 it is 6000."""
IP_SHARE: Final = 0.8
IN_FLIGHT_WAIT: Final = 0.05
"""Seconds until it is looked at again, where all that could make room is still on its way."""


class WeightBudget:
    """`share` of the limit is ours. Seconds and ms are market time; `minute` is epoch minutes of the venue's clock."""

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"the share of the weight limit must be above 0 and at most 1, not {share!r}")
        self.share = share
        self.limit = UNREAD_LIMIT
        self.known = False
        self.spent = 0
        """Weight of all requests so far."""
        self._answered: deque[tuple[float, int]] = deque()
        self._own = 0
        self._in_flight = 0
        self._used = 0
        self._minute = 0

    def set_limit(self, limit: int) -> None:
        """The limit that the venue names."""
        self.limit = limit
        self.known = True

    def wait(self, weight: int, now: float, venue_ms: int) -> float:
        """Seconds until a request of that weight may be sent; 0.0 for now. `now` in monotonic seconds."""
        self._forget(now)
        cap = int(self.share * self.limit)
        over = self._own + weight - cap
        if over > 0 and self._own > 0:
            for answered, spent in self._answered:
                over -= spent
                if over <= 0:
                    return max(0.001, answered + MINUTE_SECONDS - now)
            if self._in_flight:
                return IN_FLIGHT_WAIT
            return max(0.001, self._answered[-1][0] + MINUTE_SECONDS - now)
        minute, into = divmod(venue_ms, 60_000)
        ceiling = int(max(self.share, IP_SHARE) * self.limit)
        if minute <= self._minute and self._used + self._in_flight + weight > ceiling:
            # A second more, for what the venue's clock and ours may differ. The next answer says how it stands then.
            return (self._minute - minute) * MINUTE_SECONDS + (60_000 - into) / 1000 + 1.0
        return 0.0

    def spend(self, weight: int) -> None:
        """A request goes out."""
        self.spent += weight
        self._own += weight
        self._in_flight += weight

    def answered(self, weight: int, now: float) -> None:
        """A request has ended, with or without an answer."""
        self._in_flight -= weight
        self._answered.append((now, weight))

    def observe(self, used: int, venue_ms: int) -> None:
        """The header of an answer: what this IP has spent in the venue's minute."""
        minute = venue_ms // 60_000
        # Answers overtake each other: within a minute the highest is the newest.
        self._used = used if minute > self._minute else max(self._used, used)
        self._minute = max(minute, self._minute)

    def _forget(self, now: float) -> None:
        while self._answered and self._answered[0][0] <= now - MINUTE_SECONDS:
            self._own -= self._answered.popleft()[1]
