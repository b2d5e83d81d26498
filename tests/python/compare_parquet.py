"""Reads two Parquet files by DuckDB, pyarrow and, where it is installed, polars, whole and filtered, and fails where they differ.

    python compare_parquet.py FILE REFERENCE
"""

import sys

import duckdb
import pyarrow.dataset
import pyarrow.parquet

try:
    import polars
except ImportError:
    polars = None

file, reference = sys.argv[1:]
mine, theirs = pyarrow.parquet.read_table(file), pyarrow.parquet.read_table(reference)
assert mine.equals(theirs), "pyarrow"
assert mine.schema.equals(theirs.schema, check_metadata=True), "pyarrow: schema"
if polars:
    assert polars.read_parquet(file).equals(polars.read_parquet(reference)), "polars"
    assert polars.scan_parquet(file).collect().equals(polars.scan_parquet(reference).collect()), "polars, lazy"
rows = "SELECT * FROM read_parquet('{}', file_row_number = true) ORDER BY file_row_number"
assert duckdb.sql(rows.format(file)).to_arrow_table().equals(duckdb.sql(rows.format(reference)).to_arrow_table()), "duckdb"
# Filters use the statistics of row groups and pages.
for column in mine.column_names:
    if pyarrow.types.is_list(mine.schema.field(column).type):
        continue
    values = sorted(value for value in set(mine[column].to_pylist()) if value is not None)
    for value in values[:: max(1, len(values) // 5)]:
        field = pyarrow.dataset.field(column)
        count = [pyarrow.dataset.dataset(path).count_rows(filter=field == value) for path in (file, reference)]
        counted = f'SELECT count(*) FROM read_parquet(?) WHERE "{column}" = ?'
        count += [duckdb.execute(counted, [path, value]).fetchone()[0] for path in (file, reference)]
        if polars:
            literal = polars.lit(value, dtype=polars.scan_parquet(file).collect_schema()[column])
            count += [polars.scan_parquet(path).filter(polars.col(column) == literal).collect().height for path in (file, reference)]
        assert len(set(count)) == 1 and count[0] > 0, (column, count)
print(mine.num_rows)
