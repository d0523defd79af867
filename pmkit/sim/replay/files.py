"""Reading recorded files line by line: gzip, plain text, and the zips of Binance's archive. No form is known here.

A file that is torn or damaged gives all whole lines before the damage and raises `Damaged` where they end.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 16
_GZIP = b"\x1f\x8b"
_ZIP = b"PK"
_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = 64 * 2**20


class Damaged(Exception):
    """A file cannot be read any further: cut off in the middle, or its checksum is wrong."""


def is_zip(path: Path) -> bool:
    """Whether it is a zip archive, by its first bytes."""
    with path.open("rb") as file:
        return file.read(2) == _ZIP


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a text file, gzipped or not, without line ends and without blank ones.

    Raises Damaged after the last whole line; a line that was cut is not given.
    """
    rest = b""
    first = True
    for chunk in _chunks(path):
        if first:
            chunk, first = chunk.removeprefix(_BOM), False
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise Damaged(f"a line of more than {_LONGEST_LINE >> 20} MiB: this is no text")
        for line in whole:
            if line := line.strip(b"\r"):
                yield line
    if rest := rest.strip(b"\r"):
        yield rest


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
        file.seek(0)
        if not zipped:
            while chunk := file.read(_CHUNK):
                yield chunk
            return
        inflate = zlib.decompressobj(wbits=31)
        begun = False
        while raw := file.read(_CHUNK):
            while raw:
                if inflate.eof:  # a further member: gzip files may be joined
                    inflate = zlib.decompressobj(wbits=31)
                try:
                    text = inflate.decompress(raw)
                except zlib.error as error:
                    raise Damaged(f"the gzip is damaged ({error})") from error
                raw = inflate.unused_data
                begun = True
                if text:
                    yield text
        if not begun or not inflate.eof:
            raise Damaged("the gzip is torn: it ends in the middle")


def member_name(path: Path) -> str:
    """The name of the one CSV in a zip. Raises Damaged for an archive that cannot be opened or holds something else."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
    except zipfile.BadZipFile as error:
        raise Damaged(f"the zip cannot be opened ({error})") from error
    if len(names) != 1:
        raise Damaged(f"the zip holds {len(names)} CSV files, expected one")
    return names[0]


def zipped_lines(path: Path) -> Iterator[bytes]:
    """The lines of the one CSV in a zip. Raises Damaged like `lines`."""
    name = member_name(path)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            for line in member:
                if line := line.strip(b"\r\n"):
                    yield line
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Damaged(f"the zip is damaged ({error})") from error
