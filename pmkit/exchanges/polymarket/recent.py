"""The last changes of a connection, for what comes late (wire)."""

from __future__ import annotations

from collections import deque
from typing import Final

from pmkit.exchanges.polymarket.messages import PriceChange, decode_price_change

RECENT: Final = 128


class Recent(deque[PriceChange | bytes]):
    """The last messages with changes, as they came.

    Frames rather than events, where there is one: an event is some twenty objects, which one that is let go leaves warm
    for the next.
    """

    def __init__(self) -> None:
        super().__init__(maxlen=RECENT)

    def newer_than(self, venue_ms: int) -> list[PriceChange] | None:
        """The changes with a later stamp, in the order in which they came; None where some may be forgotten."""
        events = [decode_price_change(kept) if isinstance(kept, bytes) else kept for kept in self]
        if len(events) == RECENT and events[0].timestamp > venue_ms:
            return None
        return [event for event in events if event.timestamp > venue_ms]
