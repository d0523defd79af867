"""What the storage behind the bulk files lists: XML, 1000 keys a page, by prefix (binance.md, section 3, listing)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from xml.sax.saxutils import escape

from pmkit.sim.binance.archives import DAILY, MONTHLY, ArchiveName, next_month
from pmkit.sim.binance.candles import CandleMaker

LONGEST = 1_000
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class Listing:
    """One answer. Files are listed only below the folder of one symbol and interval; above it only the folders are.

    Without `delimiter=/` a prefix above such a folder gives an empty list here, unlike the real one.
    """

    def __init__(
        self,
        makers: tuple[CandleMaker, ...],
        published: Callable[[ArchiveName], bool],
        published_ms: Callable[[ArchiveName], int],
        now_ms: int,
    ) -> None:
        self._makers = {maker.symbol.name: maker for maker in makers}
        self._published = published
        self._published_ms = published_ms
        self._now_ms = now_ms

    def answer(self, query: Mapping[str, str]) -> bytes:
        """`prefix`, `delimiter`, `max-keys`, and `marker` or (with list-type=2) `continuation-token`, `start-after`."""
        prefix = query.get("prefix", "")
        second = query.get("list-type") == "2"
        after = query.get("continuation-token") or query.get("start-after", "") if second else query.get("marker", "")
        asked = query.get("max-keys", "")
        limit = min(LONGEST, int(asked)) if asked.isascii() and asked.isdigit() else LONGEST
        folder, _, _ = prefix.rpartition("/")
        parts = folder.split("/") if folder else []
        keys: list[tuple[str, int]] = []
        folders: list[str] = []
        if len(parts) == 6:
            keys = [entry for entry in self._files(parts) if entry[0].startswith(prefix)]
            keys.sort()
            keys = keys[bisect_right(keys, after, key=lambda entry: entry[0]) :]
        elif query.get("delimiter") == "/":
            names = (f"{folder}/{name}/" if folder else f"{name}/" for name in self._folders(parts))
            folders = sorted(name for name in names if name.startswith(prefix) and name > after)
        page, rest = keys[:limit], keys[limit:]
        lines = [f"<Name>data.binance.vision</Name><Prefix>{escape(prefix)}</Prefix>"]
        if second:
            lines.append(f"<KeyCount>{len(page) + len(folders)}</KeyCount>")
            if rest and page:
                lines.append(f"<NextContinuationToken>{page[-1][0]}</NextContinuationToken>")
        else:
            lines.append(f"<Marker>{escape(after)}</Marker>")
        lines.append(f"<MaxKeys>{limit}</MaxKeys><IsTruncated>{'true' if rest else 'false'}</IsTruncated>")
        for key, at_ms in page:
            stamp = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            lines.append(f"<Contents><Key>{key}</Key><LastModified>{stamp}</LastModified></Contents>")
        lines += [f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in folders]
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<ListBucketResult xmlns="{_NAMESPACE}">{"".join(lines)}</ListBucketResult>'
        ).encode()

    def _folders(self, parts: list[str]) -> list[str]:
        """What lies in a folder that holds folders."""
        fixed = ["data", "spot", None, "klines"]
        for part, name in zip(parts, fixed, strict=False):
            if name is not None and part != name:
                return []
        if len(parts) >= 3 and parts[2] not in ("daily", "monthly"):
            return []
        if len(parts) == 5 and parts[4] not in self._makers:
            return []
        levels = [["data"], ["spot"], ["daily", "monthly"], ["klines"], list(self._makers)]
        if len(parts) < len(levels):
            return levels[len(parts)]
        return list(DAILY if parts[2] == "daily" else MONTHLY) if len(parts) == 5 else []

    def _files(self, parts: list[str]) -> list[tuple[str, int]]:
        """Every published file of one folder, and its checksum."""
        if parts[5] not in self._folders(parts[:5]):
            return []
        monthly = parts[2] == "monthly"
        maker = self._makers[parts[4]]
        day = datetime.fromtimestamp(maker.symbol.first_ms // 1000, UTC).date()
        last = datetime.fromtimestamp(self._now_ms // 1000, UTC).date()
        found: list[tuple[str, int]] = []
        if monthly:
            day = day.replace(day=1)
        while day <= last:
            name = ArchiveName(maker.symbol.name, parts[5], day, monthly)
            if self._published(name):
                at_ms = self._published_ms(name)
                found += [(name.key, at_ms), (name.key + ".CHECKSUM", at_ms)]
            day = _after(day, monthly)
        return found


def _after(day: date, monthly: bool) -> date:
    return next_month(day) if monthly else day + timedelta(days=1)
