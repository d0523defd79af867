"""One tree of errors under `PmkitError`.

A message names the host or file, what happened and the next step. No message holds a secret: what is raised here is
built from statuses, codes and public ids only.

Placing an order has three outcomes: an order id, `OrderRejected` (proof that the venue refused) and
`OrderUnknown` (anything else after the first byte may have left). `InvalidOrder` and `NotSent` are raised before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmkit.exchanges.types import Intent


class PmkitError(Exception):
    """The root: `except PmkitError` catches all that pmkit raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default a copy or pickle is made by calling the class with the message, which most here do not take.
        return _copied, (type(self), self.args), self.__dict__


def _copied(kind: type[PmkitError], args: tuple[Any, ...]) -> PmkitError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigError(PmkitError):
    """A setting, file or directory is missing or wrong. `problems` holds one line each; all are found in one go."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(message + lines)


class AuthError(PmkitError):
    """The venue refused the credentials (401, or 403 for a missing scope)."""


class ClockSkewError(AuthError):
    """A signed request was refused for its time stamp. `skew_ms` is local minus venue time, as far as it is known."""

    def __init__(self, message: str, skew_ms: int | None = None) -> None:
        self.skew_ms = skew_ms
        super().__init__(message)


class RateLimited(PmkitError):
    """429 or a local budget. `retry_after` is in seconds of wall time, None where the venue names none."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class VenueUnavailable(PmkitError):
    """5xx, 425, maintenance, or no answer to a query. `status` is the HTTP status, None without an answer."""

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(message)


class RegionBlocked(PmkitError):
    """403 or 451 because of where this machine is. Final for that host."""


class MarketNotFound(PmkitError):
    """A market id or ticker that the venue does not know."""


class ProtocolChanged(PmkitError):
    """The venue speaks differently than this version expects: 410, a version mismatch, a needed field gone."""


class NotSent(PmkitError):
    """The transport proves that no byte of the request left this machine (DNS, refused connection, local limit)."""


class InvalidOrder(PmkitError, ValueError):
    """Refused here, nothing was sent: off-grid, below the minimum, float, NaN, wrong combination of arguments."""


class OrderRejected(PmkitError):
    """Proof that the venue refused the order: a status and text of that venue's refusal table.

    `code` is stable and short (`post_only_cross`, `duplicate`, `market_closed`, ...); `reason` is the venue's own text.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"order rejected ({code}): {reason}")


class InsufficientFunds(OrderRejected):
    """The venue (or the dry-run) says that balance or allowance does not cover the order."""

    def __init__(self, reason: str, code: str = "insufficient_funds") -> None:
        super().__init__(code, reason)


class OrderRateLimited(OrderRejected, RateLimited):
    """An order refused by the venue's rate limit, with the venue's own body as proof."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        OrderRejected.__init__(self, "rate_limited", reason)
        self.retry_after = retry_after


class OrderRegionBlocked(OrderRejected, RegionBlocked):
    """An order refused because of the region."""

    def __init__(self, reason: str) -> None:
        OrderRejected.__init__(self, "region_blocked", reason)


class OrderAuthError(OrderRejected, AuthError):
    """An order refused for its credentials."""

    def __init__(self, reason: str) -> None:
        OrderRejected.__init__(self, "auth", reason)


class OrderClockSkew(OrderRejected, ClockSkewError):
    """An order refused for its time stamp, again after it was signed anew once."""

    def __init__(self, reason: str, skew_ms: int | None = None) -> None:
        OrderRejected.__init__(self, "clock_skew", reason)
        self.skew_ms = skew_ms


class OrderVenueUnavailable(OrderRejected, VenueUnavailable):
    """An order refused because the venue takes none now, proven by the venue's own text (pause, cancel-only)."""

    def __init__(self, reason: str, status: int | None = None, retry_after: float | None = None) -> None:
        OrderRejected.__init__(self, "venue_unavailable", reason)
        self.status = status
        self.retry_after = retry_after


class OrderUnknown(PmkitError):
    """The order may or may not stand. `intent` holds the ids to look it up with; see `resolve_order`."""

    def __init__(self, intent: Intent, reason: str) -> None:
        self.intent = intent
        self.reason = reason
        super().__init__(
            f"the outcome of order {intent.client_order_id} on {intent.venue} is unknown ({reason}): "
            "call resolve_order(error.intent); do not place it again"
        )


class CancelUnknown(PmkitError):
    """The cancel may or may not have worked. A cancel may be repeated."""

    def __init__(self, order_id: str, reason: str) -> None:
        self.order_id = order_id
        self.reason = reason
        super().__init__(f"the outcome of cancelling {order_id} is unknown ({reason}): the cancel may be repeated")


class RedeemRefused(PmkitError):
    """A redeem that was not sent, or that the relayer proved not to have taken: nothing was redeemed, nothing is on its
    way. `code` is stable and short (`no_gas`, `gas_price`, `would_revert`, `blocked`, `node`, `wallet`, `relayer`,
    `relayer_busy`, `quota`).
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"nothing was redeemed ({code}): {reason}")


class NotYetRedeemable(RedeemRefused):
    """The chain has no result of the market yet, whatever the venue's pages say. `retry_after`: seconds to wait."""

    def __init__(self, reason: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__("not_yet", reason)
