"""ccxt's own client and book without its exchanges, whose import takes seconds and 200 MB that no contender uses."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def _bare(name: str) -> ModuleType:
    """The package with nothing run of its `__init__`."""
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = ModuleType(name)
    module.__spec__, module.__path__ = spec, list(spec.submodule_search_locations or ())
    sys.modules[name] = module
    return module


def _load(name: str) -> ModuleType:
    if "ccxt" not in sys.modules:
        package = _bare("ccxt")
        _bare("ccxt.async_support")
        # What `import ccxt` gives, but for the exchanges: the parts import it from there.
        vars(package).update(vars(importlib.import_module("ccxt.base.errors")))
        vars(package)["Exchange"] = importlib.import_module("ccxt.base.exchange").Exchange
    return importlib.import_module(name)


def book_class() -> Any:
    """ccxt's OrderBook. Raises ModuleNotFoundError where ccxt is not installed."""
    return _load("ccxt.async_support.base.ws.order_book").OrderBook


def exchange_class() -> Any:
    """The base of ccxt pro's exchanges."""
    return _load("ccxt.async_support.base.exchange").Exchange
