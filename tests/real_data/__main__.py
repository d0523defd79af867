"""Real recordings of Kalshi against pmkit's rules.

    python -m tests.real_data FILE...

Forms, told by their columns: fills, orders and settled windows as CSV, fills, orders and markets as REST gives them,
charged fees, a log of order calls, messages of a socket with books, books as REST gives them; gzipped or not. Given
together, fills are added up to their orders, and books of REST are compared with the snapshots of the socket. It ends
with `N of M` and the reasons for the rest: named kinds, and rows that nothing explains.

Exit status: 0 when every row is explained or of a named kind, 1 when one is not, 2 for a file that cannot be read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pmkit.exchanges.types import Fill
from tests.real_data.books import Moments, check_books, check_socket
from tests.real_data.calls import check_log
from tests.real_data.forms import Form, Recording, UnknownForm, read
from tests.real_data.money import check_charges, check_fills, check_orders
from tests.real_data.report import Report, together
from tests.real_data.windows import check_markets, check_settled


def check(recordings: list[Recording]) -> list[Report]:
    """One report per file; fills first, since orders are compared with them."""
    reports: list[Report] = []
    fills: list[Fill] = []
    seen: dict[str, str] = {}
    moments: Moments = {}
    for path, form, rows in recordings:
        if form is Form.FILLS:
            report, good = check_fills(path.name, rows, seen)
            reports.append(report)
            fills += good
        elif form is Form.SOCKET:
            reports.append(check_socket(path.name, rows, moments))
    for path, form, rows in recordings:
        if form is Form.ORDERS:
            reports.append(check_orders(path.name, rows, fills, has_fills=bool(fills)))
        elif form is Form.SETTLED:
            reports.append(check_settled(path.name, rows))
        elif form is Form.CHARGES:
            reports.append(check_charges(path.name, rows))
        elif form is Form.MARKETS:
            reports.append(check_markets(path.name, rows))
        elif form is Form.API_LOG:
            reports.append(check_log(path.name, rows))
        elif form is Form.BOOKS:
            reports.append(check_books(path.name, rows, moments))
    return reports


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    recordings: list[Recording] = []
    for argument in arguments:
        try:
            recordings.append(read(Path(argument)))
        except (UnknownForm, OSError) as error:
            print(f"{argument}: {error}", file=sys.stderr)
            return 2
    reports = check(recordings)
    for report in reports:
        print("\n".join(report.lines()))
    whole = together(reports)
    rest = [
        f"{len(rows)} {title}: {why}"
        for title, reasons in (("named", whole.named), ("NOT EXPLAINED", whole.failed))
        for why, rows in reasons.items()
    ]
    print(f"{whole.exact} of {whole.total}" + (f"; the rest: {'; '.join(rest)}" if rest else ""))
    return 0 if whole.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
