"""Reads every data file of a warehouse with other makers' readers: whole, and with filters that skip pages by their index.

    python read_spliced.py WAREHOUSE

All must find the same rows. Prints the readers and the number of files that an erasure has spliced.
"""

import pathlib
import sys

import duckdb
import pyarrow.dataset
import pyarrow.parquet

try:
    import polars
except ImportError:
    polars = None

READERS = ["duckdb", "pyarrow"] + (["polars"] if polars else [])


def wanted(table: pyarrow.Table) -> list[bytes]:
    """Some devices from all over the file, and one that is not there."""
    devices = table.column("device").unique().to_pylist()
    return devices[:: max(1, len(devices) // 7)] + [b"\xff" * 16]


def check(path: pathlib.Path) -> None:
    file = pyarrow.parquet.ParquetFile(path)
    whole = file.read()
    assert whole.num_rows == file.metadata.num_rows
    for group in range(file.num_row_groups):
        # Each row group by itself, column by column: counts and statistics hold.
        for at, name in enumerate(file.schema_arrow.names):
            column = file.read_row_group(group, [name]).column(0)
            assert len(column) == file.metadata.row_group(group).num_rows
            statistics = file.metadata.row_group(group).column(at).statistics
            if statistics is not None and statistics.has_null_count and column.type != pyarrow.list_(pyarrow.int32()):
                assert statistics.null_count == column.null_count, (path, name)
    counted = duckdb.execute(f"SELECT count(*) FROM read_parquet('{path}')").fetchone()[0]
    assert counted == whole.num_rows
    assert duckdb.execute(f"SELECT * FROM read_parquet('{path}', hive_partitioning = false)").to_arrow_table().num_rows == whole.num_rows
    if polars:
        assert polars.scan_parquet(path, hive_partitioning=False).collect().height == whole.num_rows
    rows = whole.to_pylist()
    for device in wanted(whole):
        mine = [row for row in rows if row["device"] == device]
        mine = sorted(map(str, (list(row.values()) for row in mine)))

        def same(found: list[dict], reader: str) -> None:
            assert sorted(map(str, (list(row.values()) for row in found))) == mine, (path, reader, device.hex())

        expression = pyarrow.dataset.field("device") == pyarrow.scalar(device, whole.schema.field("device").type)
        same(pyarrow.parquet.read_table(path, filters=expression, partitioning=None).to_pylist(), "pyarrow")
        columns = ", ".join(f'"{name}"' for name in whole.column_names)
        query = f"SELECT {columns} FROM read_parquet('{path}', hive_partitioning = false) WHERE device = $1"
        same(duckdb.execute("SET TimeZone = 'UTC'").execute(query, [device]).to_arrow_table().cast(whole.schema).to_pylist(), "duckdb")
        if polars:
            frame = polars.scan_parquet(path, hive_partitioning=False, use_statistics=True).filter(polars.col("device") == device)
            same(frame.collect().to_arrow().cast(whole.schema).to_pylist(), "polars")


def main() -> None:
    spliced = 0
    for table in ("events", "activity", "links", "devices"):
        for path in sorted(pathlib.Path(sys.argv[1], table).glob("month=*/*.parquet")):
            check(path)
            spliced += len(path.stem.split("-")) == 5 and path.stem.startswith("s-")
    print(" ".join(READERS), spliced)


if __name__ == "__main__":
    main()
