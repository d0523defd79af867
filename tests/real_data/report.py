"""What a check found: rows that the rules explain, and the reasons for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 3


@dataclass
class Report:
    """`named`: kinds of rows that are known and say why they differ; `failed`: rows that nothing explains."""

    name: str
    total: int = 0
    exact: int = 0
    named: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def explain(self) -> None:
        self.total += 1
        self.exact += 1

    def name_it(self, kind: str, row: str) -> None:
        self.total += 1
        self.named.setdefault(kind, []).append(row)

    def fail(self, why: str, row: str) -> None:
        self.total += 1
        self.failed.setdefault(why, []).append(row)

    @property
    def ok(self) -> bool:
        """Every row is explained or of a named kind, and there were rows."""
        return self.total > 0 and not self.failed

    def lines(self) -> list[str]:
        """The report as text: `N of M`, then a line per reason with its number of rows and a few of them."""
        found = [f"{self.name}: {self.exact} of {self.total}"]
        for title, reasons in (("named", self.named), ("NOT EXPLAINED", self.failed)):
            for why, rows in sorted(reasons.items(), key=lambda item: -len(item[1])):
                more = ", ..." if len(rows) > SHOWN else ""
                found.append(f"  {len(rows)} {title}: {why} ({', '.join(rows[:SHOWN])}{more})")
        return found + [f"  note: {note}" for note in self.notes]


def together(reports: list[Report]) -> Report:
    """All rows of all files in one."""
    whole = Report("all files")
    for one in reports:
        whole.total += one.total
        whole.exact += one.exact
        for mine, its in ((whole.named, one.named), (whole.failed, one.failed)):
            for why, rows in its.items():
                mine.setdefault(why, []).extend(rows)
    return whole
