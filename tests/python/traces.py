"""Finds pseudonyms in whatever a home keeps, without any code of ours.

Every file is searched as it lies there, in binary, hex and base64. Of Parquet, data files and checkpoints alike, each
page is unpacked and searched too, dictionaries included, and each value is decoded; of SQLite each row is read.
"""

import base64
import pathlib
import re
import shutil
import sqlite3
import tempfile

import pyarrow
import pyarrow.parquet

HEX = re.compile(rb"[0-9a-fA-F]{32,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{22,}")
STANDARD = bytes.maketrans(b"-_", b"+/")


def holds(content: bytes, gone: set[bytes]) -> bool:
    """Whether any sixteen bytes of the content are a pseudonym."""
    return any(content[at : at + 16] in gone for at in range(len(content) - 15))


def spells(content: bytes, gone: set[bytes]) -> str | None:
    """How the content names a pseudonym: as raw bytes, in hex, in base64, or not at all."""
    if holds(content, gone):
        return "raw bytes"
    for run in HEX.finditer(content):
        for start in (0, 1):
            text = run.group()[start:]
            if holds(bytes.fromhex(text[: len(text) // 2 * 2].decode()), gone):
                return "hex"
    for run in BASE64.finditer(content):
        for start in range(4):
            text = run.group()[start:].translate(STANDARD)
            # A last group of two or three characters spells bytes as well.
            text = text[: len(text) - (len(text) % 4 == 1)]
            if holds(base64.b64decode(text + b"=" * (-len(text) % 4)), gone):
                return "base64"
    return None


def varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return number, at


def thrift(data: bytes, at: int, kind: int):
    """A value of Thrift's compact protocol, and where it ends; a struct is a dict by field number."""
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        number, at = varint(data, at)
        return (number >> 1) ^ -(number & 1), at
    if kind == 7:
        return data[at : at + 8], at + 8
    if kind == 8:
        length, at = varint(data, at)
        return data[at : at + length], at + length
    if kind == 12:
        fields, field = {}, 0
        while data[at]:
            head, at = data[at], at + 1
            if head >> 4:
                field += head >> 4
            else:
                field, at = thrift(data, at, 4)
            fields[field], at = thrift(data, at, head & 15)
        return fields, at + 1
    raise ValueError(f"thrift type {kind} in a page header")


def pages(content: bytes):
    """The body of each page of a Parquet file, unpacked."""
    metadata = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)).metadata
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            at = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            end = at + chunk.total_compressed_size
            while at < end:
                header, at = thrift(content, at, 12)
                body, at = content[at : at + header[3]], at + header[3]
                second = header.get(8, {})
                levels = second.get(5, 0) + second.get(6, 0)
                if chunk.compression != "UNCOMPRESSED" and second.get(7, True) and len(body) > levels:
                    codec = pyarrow.Codec(chunk.compression.lower())
                    body = body[:levels] + codec.decompress(body[levels:], header[2] - levels, asbytes=True)
                yield body


def flat(array):
    """The values of a column in binary or text, from whatever depth."""
    kind = array.type
    if pyarrow.types.is_struct(kind):
        for child in array.flatten():
            yield from flat(child)
    elif pyarrow.types.is_map(kind):
        yield from flat(array.keys)
        yield from flat(array.items)
    elif pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        yield from flat(array.flatten())
    elif pyarrow.types.is_binary(kind) or pyarrow.types.is_string(kind):
        for value in array.unique().to_pylist():
            if value is not None:
                yield value if isinstance(value, bytes) else value.encode()


def rows(path: pathlib.Path):
    """Every value of an SQLite database, read from a copy together with its write-ahead log."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            side = path.with_name(path.name + suffix)
            if side.exists():
                shutil.copy(side, pathlib.Path(folder, "copy" + suffix))
        database = sqlite3.connect(pathlib.Path(folder, "copy"))
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if isinstance(value, (bytes, str)):
                        yield value if isinstance(value, bytes) else value.encode()
        database.close()


def traces(path: pathlib.Path, gone: set[bytes]) -> list[str]:
    """Where a file names one of those who are gone."""
    content = path.read_bytes()
    found = [spells(content, gone)]
    # What a killed process was still writing has no footer by which it could be read: nobody can, but for its bytes.
    unfinished = "#" in path.name and content[-4:] != b"PAR1"
    if content[:4] == b"PAR1" and not unfinished:
        found += ["a page" for body in pages(content) if spells(body, gone)]
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for name, column in zip(batch.schema.names, batch.columns):
                found += [f"column {name}" for value in flat(column) if value in gone or spells(value, gone)]
    elif content[:15] == b"SQLite format 3":
        found += ["a row" for value in rows(path) if spells(value, gone)]
    return [f"{path}: {what}" for what in sorted(set(filter(None, found)))]


def planted() -> None:
    """Fails unless each way in which a pseudonym could stand in a file is found."""
    one = bytes(range(200, 216))
    other = bytes(16)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "raw").write_bytes(b"......." + one + b".")
        (root / "hex.json").write_text(f'{{"predicate": "device = X\'0{one.hex()}\'"}}')
        (root / "upper").write_text(one.hex().upper())
        for offset in range(3):
            (root / f"base64-{offset}").write_bytes(b'"' + base64.b64encode(bytes(offset) + one) + b'"')
        (root / "url").write_bytes(base64.urlsafe_b64encode(one).rstrip(b"="))
        for dictionary in (False, True):
            # Sorted neighbours share their first bytes, so the value stands in no page as it is.
            table = pyarrow.table({"device": [one[:15] + b"\0", one] * 99, "nested": [{"a": [one.hex()]}] * 198})
            encoding = {} if dictionary else {"column_encoding": {"device": "DELTA_BYTE_ARRAY", "nested.a.list.element": "PLAIN"}}
            pyarrow.parquet.write_table(table, root / f"{dictionary}.parquet", compression="zstd", use_dictionary=dictionary, **encoding)
        database = sqlite3.connect(root / "ledger.db")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (?)", [one])
        database.commit()
        count, found = everywhere([root], {one})
        missed = {path.name for path in root.iterdir()} - {pathlib.Path(trace.split(": ")[0]).name for trace in found} - {"ledger.db-shm"}
        assert not missed, missed
        assert {trace.split(": ")[1] for trace in found} >= {"raw bytes", "hex", "base64", "column device", "column nested", "a page", "a row"}, found
        database.close()
        (root / "url").write_bytes(one[1:])
        assert everywhere([root / "url"], {one}) == (1, []) and everywhere([root], {other[:15] + b"\1"})[1] == []


def everywhere(roots: list[pathlib.Path], gone: set[bytes], besides: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """How many files there are below the roots, and where they name one of those who are gone; `besides` are folders left out."""
    files = [path for root in roots for path in (root.rglob("*") if root.is_dir() else [root])]
    files = [path for path in files if path.is_file() and not any(name in path.parts for name in besides)]
    return len(files), [trace for path in files for trace in traces(path, gone)]
