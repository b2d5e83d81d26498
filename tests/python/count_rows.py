"""Counts the rows of Delta tables with the Python `deltalake` package."""

import sys

from deltalake import DeltaTable

print(",".join(str(DeltaTable(f"{sys.argv[1]}/{table}").to_pyarrow_dataset().count_rows()) for table in sys.argv[2:]))
