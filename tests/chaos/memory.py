"""What pmkit keeps in memory: every collection that is reachable, by the class and attribute that hold it.

Read from the garbage collector, so that what nobody can reach from the bot any more (an old connection that a closure
still holds) is seen as well. The local venues are left out.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter, deque
from collections.abc import Iterator

from pmkit.http_pool import KEPT_URLS
from pmkit.streams import Subscription

KINDS = (dict, list, set, deque)
SIM = "pmkit.sim"
BOUNDS = {
    "LiveBook.ask_texts": 2 * 10_000,
    "LiveBook.bid_texts": 2 * 10_000,
    "LiveBook.tick_of": 10_000,
    "_TouchMap._ticks": 10_000,
    "BookPair.prices": 2 * 10_000,
    "OrderBook.bid_units": 10_000,
    "OrderBook.ask_units": 10_000,
    "HttpSession._urls": KEPT_URLS,
}
"""What has a bound of its own an instance. By price: 0.0001 dollars and 1 dollar make 10,000 of them."""


def bounded(name: str) -> bool:
    return name in BOUNDS


def _ours(kind: type) -> bool:
    module = getattr(kind, "__module__", None)
    return isinstance(module, str) and module.startswith("pmkit.") and not module.startswith(SIM)


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{kind.__name__.lstrip('_')}{name}"
            value = getattr(thing, name, None)
            if value is not None:
                yield name, value


def _size(value: object) -> int | None:
    """Elements of a collection and of the collections in it; None for what is none, or has a bound of its own."""
    if not isinstance(value, KINDS) or (isinstance(value, deque) and value.maxlen is not None):
        return None
    inner = value.values() if isinstance(value, dict) else value
    return len(value) + sum(len(one) for one in inner if isinstance(one, KINDS))


def census() -> Counter[str]:
    """Elements by "Class.attribute" or "module.NAME", and instances by "instances of Class"."""
    gc.collect()
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if not _ours(kind):
            continue
        found[f"instances of {kind.__name__}"] += 1
        if isinstance(thing, Subscription):
            found[f"{thing.name}.pending"] += thing.pending
        for name, value in _attributes(thing):
            size = _size(value)
            if size is not None:
                found[f"{kind.__name__}.{name}"] += size
    for module, contents in [*sys.modules.items()]:
        if module.startswith("pmkit.") and not module.startswith(SIM):
            for name, value in vars(contents).items():
                size = _size(value)
                if size is not None and not name.startswith("__"):
                    found[f"{module}.{name}"] = size
    return found


def growth(before: Counter[str], after: Counter[str], allowed: int) -> dict[str, int]:
    """What has more than `allowed` elements more."""
    return {name: after[name] - before[name] for name in after if after[name] - before[name] > allowed}
