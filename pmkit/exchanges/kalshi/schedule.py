"""When Kalshi trades (wire): the answer of GET /exchange/schedule to moments.

Hours are given per weekday in New York wall-clock time; outside them, and in maintenance windows, there is no trading.
The regular gap is Thursday 03:00-05:00.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from pmkit.exchanges.kalshi.rest_messages import Schedule, WeekHours
from pmkit.exchanges.kalshi.types import RowError, time_ms

NEW_YORK: Final = ZoneInfo("America/New_York")
_HHMM = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])").fullmatch
_DAYS_AHEAD = 9


def closed_until(schedule: Schedule, at_ms: int) -> int | None:
    """None where trading is scheduled at `at_ms` (epoch ms); else the next moment (epoch ms) at which it is.

    Raises RowError for a schedule that cannot be read, or that has no trading within the next days.
    """
    moment = at_ms
    for _ in range(_DAYS_AHEAD):
        after = _after_maintenance(schedule, moment)
        opens = _next_open(schedule, after)
        if opens == moment:
            return None if moment == at_ms else moment
        moment = opens
    raise RowError("the schedule of the exchange never opens")


def _after_maintenance(schedule: Schedule, at_ms: int) -> int:
    for window in schedule.maintenance_windows or ():
        start = time_ms(window.start_datetime, "start of a maintenance window")
        end = time_ms(window.end_datetime, "end of a maintenance window")
        if start <= at_ms < end:
            return end
    return at_ms


def _next_open(schedule: Schedule, at_ms: int) -> int:
    """`at_ms` when it lies in the standard hours, else the start of the next ones. Without hours: always open."""
    week = next((hours for hours in schedule.standard_hours or () if _in_force(hours, at_ms)), None)
    if week is None:
        return at_ms
    first = datetime.fromtimestamp(at_ms / 1000, NEW_YORK).date() - timedelta(days=1)
    later: list[int] = []
    for start, end in _spans(week, first):
        if start <= at_ms < end:
            return at_ms
        if start > at_ms:
            later.append(start)
    if not later:
        raise RowError("the schedule of the exchange has no trading hours")
    return min(later)


def _in_force(week: WeekHours, at_ms: int) -> bool:
    return (not week.start_time or _stamp(week.start_time) <= at_ms) and (
        not week.end_time or at_ms < _stamp(week.end_time)
    )


def _stamp(text: str) -> int:
    """Not `time_ms`: the end of the hours in force lies in the year 2200."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RowError(f"the schedule holds {ascii(text)[:40]} for a time") from None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 1000


def _spans(week: WeekHours, first: date) -> Iterator[tuple[int, int]]:
    days = (week.monday, week.tuesday, week.wednesday, week.thursday, week.friday, week.saturday, week.sunday)
    for offset in range(_DAYS_AHEAD):
        day = first + timedelta(days=offset)
        for hours in days[day.weekday()] or ():
            opens, closes = _clock(hours.open_time), _clock(hours.close_time)
            ends_on = day if closes > opens else day + timedelta(days=1)
            yield _moment(day, opens), _moment(ends_on, closes)


def _clock(text: str) -> time:
    found = _HHMM(text)
    if not found:
        raise RowError(f"the schedule holds {ascii(text)[:20]} for an hour")
    return time(int(found[1]), int(found[2]))


def _moment(day: date, clock: time) -> int:
    return int(datetime.combine(day, clock, NEW_YORK).timestamp()) * 1000
