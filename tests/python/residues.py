"""Looks for erased pseudonyms in every file of a home, without any code of ours.

    python residues.py BEFORE HOME

BEFORE is a copy of the warehouse from before the erasure. Whoever stands in its `events` and no more in those of
HOME has been erased; `traces.py` says how they are looked for. Prints how many they are; fails where one is found.
"""

import pathlib
import sys

import pyarrow.parquet

from traces import everywhere


def pseudonyms(warehouse: pathlib.Path, column: str) -> set[bytes]:
    found = set()
    for path in warehouse.glob("events/month=*/*.parquet"):
        found.update(pyarrow.parquet.ParquetFile(path).read([column]).column(0).unique().to_pylist())
    return found - {None}


def main() -> None:
    before, home = map(pathlib.Path, sys.argv[1:3])
    gone = set()
    for column in ("device", "user"):
        gone |= pseudonyms(before, column) - pseudonyms(home / "warehouse", column)
    _, found = everywhere([home], gone)
    assert not found, found
    print(len(gone))


if __name__ == "__main__":
    main()
