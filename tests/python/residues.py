"""Looks for erased pseudonyms in every file of a home, without any code of ours.

    python residues.py BEFORE HOME

BEFORE is a copy of the warehouse from before the erasure. Whoever stands in its `events` and no more in those of
HOME has been erased; every Parquet file is decoded column by column, every file is searched for the 16 bytes and
their hex. Prints how many pseudonyms were looked for; fails where one is found.
"""

import pathlib
import re
import sys

import pyarrow
import pyarrow.parquet


def pseudonyms(warehouse: pathlib.Path, column: str) -> set[bytes]:
    found = set()
    for path in warehouse.glob("events/month=*/*.parquet"):
        found.update(pyarrow.parquet.ParquetFile(path).read([column]).column(0).unique().to_pylist())
    return found - {None}


def values(column: pyarrow.ChunkedArray) -> set:
    while pyarrow.types.is_list(column.type):
        column = pyarrow.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
    return set(column.unique().to_pylist()) if pyarrow.types.is_binary(column.type) or pyarrow.types.is_string(column.type) else set()


def main() -> None:
    before, home = map(pathlib.Path, sys.argv[1:3])
    after = home / "warehouse"
    gone = set()
    for column in ("device", "user"):
        gone |= pseudonyms(before, column) - pseudonyms(after, column)
    forms = [form for one in gone for form in (one, one.hex().encode(), one.hex().upper().encode())]
    searched = re.compile(b"|".join(map(re.escape, forms)) if forms else b"(?!)")
    named = set(map(str, gone))
    for path in home.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        assert not searched.search(content), f"{path}: raw bytes"
        if content[:4] == b"PAR1" and "_delta_log" not in path.parts:
            table = pyarrow.parquet.ParquetFile(path).read()
            for name in table.column_names:
                there = values(table.column(name))
                assert not (there & gone) and not (set(map(str, there)) & named), f"{path}: column {name}"
    print(len(gone))


if __name__ == "__main__":
    main()
