"""Polymarket's contracts on Polygon that a redeem touches (wire): addresses, and which one redeems a market.

Source: docs.polymarket.com/resources/contracts and docs.polymarket.com/trading/ctf/redeem, as of 2026-10. The first
generation of collateral adapters is no longer served by the relayer; neither it nor the raw NegRiskAdapter is used.
"""

from __future__ import annotations

from typing import Final

CONDITIONAL_TOKENS: Final = "0x4D97DCd97eC945f40cF65F87097ACe5EA0476045"
PUSD: Final = "0xC011a7E12a19f7B1f670d46F03B03f3342E82DFB"
COLLATERAL_ADAPTER: Final = "0xAdA100Db00Ca00073811820692005400218FcE1f"
NEG_RISK_ADAPTER: Final = "0xadA2005600Dec949baf300f4C6120000bDB6eAab"
POSITION_MANAGER: Final = "0x006F54F7f9A22e0000CC2AB60031000000ae9fEF"
ROUTER: Final = "0x12121212006e4CD160D18e3f00711DA5c3372600"
PROXY_FACTORY: Final = "0xaB45c5A4B0c941a2F231C04C3f49182e1A254052"
DEPOSIT_FACTORY: Final = "0x00000000000Fb5C9ADea0298D729A0CB3823Cc07"
SAFE_MULTI_SEND: Final = "0xA238CBeb142c10Ef7Ad8442C6D1f9E89e07e7761"
RELAY_HUB: Final = "0xD216153c06E857cD7f72665E0aF1d7D82172F494"
ZERO_ADDRESS: Final = "0x0000000000000000000000000000000000000000"

UNITS: Final = 1_000_000
"""Base units of a pUSD and of a share."""


def redeemer_of(protocol: str, neg_risk: bool) -> tuple[str, str]:
    """(the ERC-1155 contract that holds the shares, the contract that redeems them) of a market.

    The second one needs to be an approved operator of the first. `protocol` is "v1" or "v2".
    """
    if protocol == "v2":
        return POSITION_MANAGER, ROUTER
    return CONDITIONAL_TOKENS, NEG_RISK_ADAPTER if neg_risk else COLLATERAL_ADAPTER
