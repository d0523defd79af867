"""Tokens and resolutions of the Data API v2 (reference: polymarket-markets-and-redeem.md, 3.4)."""

from __future__ import annotations

from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.polymarket.data_query import conditions_of, paged, query
from pmkit.sim.polymarket.gamma import GammaRows
from pmkit.sim.polymarket.market import OUTCOMES, Listings
from pmkit.sim.server import Refused, Server


class TokenRoutes:
    """Registers the routes. What a market became shows with its resolution."""

    def __init__(self, server: Server, listings: Listings, rows: GammaRows, clock: Clock) -> None:
        self._listings = listings
        self._rows = rows
        self._clock = clock
        server.get("/v2/tokens", self._tokens)
        server.get("/v2/resolutions", self._resolutions)

    async def _tokens(self, request: web.Request) -> web.Response:
        tokens = query(request, "token_id")
        conditions = query(request, "condition", "condition_id", "conditionId")
        if len(tokens) > 50 or len(conditions) > 10 or bool(tokens) == bool(conditions):
            raise Refused(400, "one of token_id (at most 50) and condition (at most 10) must be given")
        now = self._clock.now_ms()
        wanted = list(tokens)
        for condition in conditions:
            window = self._listings.find(condition)
            wanted += window.tokens if window is not None else ()
        rows = []
        for token in dict.fromkeys(wanted):
            window = self._listings.find(token)
            if window is None or not token.isdecimal() or now < window.tokens_known_ms:
                continue
            outcome = window.outcome_of(token)
            resolved = now >= window.resolved_ms
            won = resolved and self._rows.went_up(window) == (outcome == 0)
            rows.append(
                {
                    "token_id": token,
                    "condition_id": window.condition_id,
                    "structural_condition_id": None,
                    "module": "v1_ctf",
                    "outcome_index": outcome,
                    "clob_index": outcome,
                    "outcome": OUTCOMES[outcome],
                    "opposite_token_id": window.tokens[1 - outcome],
                    "resolved": resolved,
                    "final_price": float(won) if resolved else None,
                    "title": window.title,
                    "market_slug": window.slug,
                    "closed": resolved,
                    "neg_risk": False,
                    "neg_risk_market_id": None,
                    "question_index": None,
                    "event_id": window.event_id,
                    "event_slug": window.slug,
                }
            )
        return paged(request, rows)

    async def _resolutions(self, request: web.Request) -> web.Response:
        conditions = conditions_of(request)
        questions = set(query(request, "question_id"))
        if not conditions and not questions:
            raise Refused(400, "condition or question_id must be given")
        now = self._clock.now_ms()
        rows = []
        for window in self._listings.published(now):
            if window.condition_id not in conditions and window.question_id not in questions:
                continue
            resolved = now >= window.resolved_ms
            up = resolved and self._rows.went_up(window)
            changed = window.resolved_ms if resolved else window.created_ms
            rows.append(
                {
                    "question_id": window.question_id,
                    "condition_id": window.condition_id,
                    "status": "resolved" if resolved else "initialized",
                    "extended_review": False,
                    "was_disputed": False,
                    "new_version_q": False,
                    "proposed_price": "69",
                    "reproposed_price": "69",
                    "price": ("1" if up else "0") if resolved else "69",
                    "last_update_timestamp": str(changed // 1000),
                    "market_type": "BINARY",
                    "payouts": ([1_000_000, 0] if up else [0, 1_000_000]) if resolved else None,
                    "reporter": "CHAINLINK",
                    "resolved_at": window.resolved_ms // 1000 if resolved else None,
                }
            )
        return paged(request, rows)
