"""Reads `events` with the Python `deltalake` package and DuckDB, and checks that every numbered event is there once.

Event n has the time `first` + n ms and the device n modulo `devices`; those of `erased` devices must be gone.
"""

import sys

import duckdb
from deltalake import DeltaTable

table, first_ms, count, devices, erased = sys.argv[1], *map(int, sys.argv[2:5]), [int(d) for d in sys.argv[5].split(",") if d]
events = DeltaTable(table).to_pyarrow_dataset()
con = duckdb.connect()
con.execute("SET TimeZone = 'UTC'")
con.execute(f"CREATE TABLE stored AS SELECT (epoch_us(ts) // 1000) - {first_ms} AS n FROM events")
con.execute(f"CREATE TABLE expected AS SELECT range AS n FROM range({count}) WHERE NOT list_contains({erased or [-1]}, (range % {devices})::INT)")
one = lambda query: con.execute(query).fetchone()[0]
missing = one("SELECT count(*) FROM expected ANTI JOIN stored USING (n)")
foreign = one("SELECT count(*) FROM stored ANTI JOIN expected USING (n)")
repeated = one("SELECT count(*) FROM (SELECT n FROM stored GROUP BY n HAVING count(*) > 1)")
print(f"{one('SELECT count(*) FROM stored')},{missing},{foreign},{repeated}")
if missing or foreign or repeated:
    print("first missing", con.execute("SELECT n FROM expected ANTI JOIN stored USING (n) ORDER BY n LIMIT 10").fetchall())
    print("first repeated", con.execute("SELECT n, count(*) FROM stored GROUP BY n HAVING count(*) > 1 ORDER BY n LIMIT 10").fetchall())
    print("first foreign", con.execute("SELECT n FROM stored ANTI JOIN expected USING (n) ORDER BY n LIMIT 10").fetchall())
    sys.exit(1)
