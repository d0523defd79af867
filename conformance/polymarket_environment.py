"""polymarket-client has no public setting for its hosts: its production settings with those of the local venues."""

from __future__ import annotations

import dataclasses

from polymarket import environments


def local_environment(venue: dict[str, str]) -> environments.Environment:
    """The client's production settings with other hosts."""
    config = dataclasses.replace(
        environments.PRODUCTION._config,
        clob_url=venue["clob"],
        gamma_url=venue["gamma"],
        data_url=venue["data"],
        relayer_url=venue["relayer"],
        clob_market_ws_url=venue["market_ws"],
        clob_user_ws_url=venue["user_ws"],
        realtime_ws_url=venue["live_ws"],
        rpc_url=venue["rpc"],
    )
    return environments._create_environment(name="local", config=config)
