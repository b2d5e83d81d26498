"""A fleet made by DuckDB alone: a generator that shares nothing with `ameles simulate`.

    python fleet.py OUT_DIR --devices 2000 --files 2 [--seed 7] [--first 2018-07-01]

Devices change country and firmware inside a month, are shared by users, send
events again, late and without valid consent, activate twice or never.
"""

import argparse
import pathlib

import duckdb

EVENTS_SQL = """
CREATE MACRO dice(key, salt, sides) AS (hash(key, salt, $seed) % sides)::BIGINT;

CREATE TABLE device AS
SELECT i,
       printf('%012d', 700000000000 + i * 37) AS device_id,
       dice([i], 1, 92) AS born,                       -- first active day
       1 + dice([i], 2, 120) AS lives,                 -- days until it falls silent
       5 + dice([i], 3, 60) AS activity,               -- % of days it is active
       ['speaker', 'tv', 'phone', 'laptop', 'light'][1 + dice([i], 4, 5)] AS product,
       printf('m%04d', dice([i], 5, 40)) AS model,
       printf('p%03d', dice([i], 6, 12)) AS partner,
       ['DE', 'FR', 'IT', 'ES', 'NL', 'PL', 'SE', 'AT'][1 + (dice([i], 7, 8) * (dice([i], 8, 8))) // 8] AS country,
       dice([i], 9, 100) AS moves,                     -- < 15: moves to another country on some day
       dice([i], 10, 92) AS moves_on,
       dice([i], 11, 100) AS activates,                -- < 8 never, < 14 twice
       dice([i], 12, 3) AS users                       -- 0: nobody is known, 1: one user, 2: shared by two
FROM range($devices) t(i);

CREATE TABLE active AS
SELECT d.*, day
FROM device d, range(92) r(day)
WHERE day >= born AND day < born + lives AND (day = born OR dice([i, day], 13, 100) < activity);

CREATE TABLE sent AS
SELECT a.*, n,
       (TIMESTAMP '$first' + to_days(day::INTEGER) + to_milliseconds((dice([i, day, n], 14, 86400000))::BIGINT)) AS ts,
       CASE WHEN day = born AND n = 0 AND activates >= 8 THEN 'activate'
            WHEN activates BETWEEN 8 AND 13 AND n = 1 AND dice([i, day], 15, 10) = 0 THEN 'activate'
            ELSE ['wake', 'wake', 'wake', 'heartbeat', 'control'][1 + dice([i, day, n], 16, 5)] END AS type,
       dice([i, day, n], 17, 1000) AS luck
FROM active a, range(8) e(n)
WHERE n = 0 OR n <= dice([i, day], 18, 8);

CREATE TABLE line AS
SELECT ts + CASE WHEN luck BETWEEN 40 AND 60 THEN to_hours(30) ELSE to_seconds(0) END AS arrives,
       {'event_id': uuid_of, 'device_id': device_id, 'user_id': user_id, 'type': type,
        'ts': strftime(ts, '%Y-%m-%dT%H:%M:%S.%g') || 'Z', 'product': product, 'model': model, 'partner': partner, 'country': now_in,
        'firmware': printf('1.%d.%d', day // 30, dice([i], 19, 4)),
        'consent': {'policy': CASE WHEN luck < 10 THEN '2017-01-01' ELSE '2018-05-25' END, 'purposes': ['analytics']},
        'ip': '203.0.113.7', 'mac': '38:a7:51:11:30:0e',
        'props': {'latency_ms': (luck * 3)::INTEGER, 'room': 'kitchen'}} AS event,
       luck, i, n, day
FROM (SELECT *,
             CASE WHEN moves < 15 AND day >= moves_on THEN 'PT' ELSE country END AS now_in,
             CASE WHEN users = 0 OR dice([i, day, n], 22, 20) = 0 THEN NULL
                  WHEN users = 2 AND dice([i, day, n], 20, 3) = 0 THEN printf('u%010d', 500000 + i % 1000)
                  ELSE printf('u%010d', 900000000 + i) END AS user_id,
             format('{:08x}-{:04x}-4000-8000-{:012x}', i, day, n + 16 * (dice([i, day, n], 21, 1000000))) AS uuid_of
      FROM sent);

-- One in fifty events is sent again, up to two days later.
INSERT INTO line SELECT arrives + to_minutes((luck * 5)::INTEGER), event, luck, i, n, day FROM line WHERE luck BETWEEN 100 AND 119;
"""


def write(out: pathlib.Path, devices: int, files: int, seed: int, first: str) -> int:
    """Writes the events in order of arrival and returns their number."""
    out.mkdir(parents=True, exist_ok=True)
    db = duckdb.connect()
    for statement in EVENTS_SQL.split(";\n"):
        if statement.strip():
            db.execute(statement.replace("$seed", str(seed)).replace("$devices", str(devices)).replace("$first", first))
    total = db.execute("SELECT count(*) FROM line").fetchone()[0]
    db.execute("CREATE TABLE ordered AS SELECT row_number() OVER (ORDER BY arrives, i, day, n) AS place, event FROM line")
    for part in range(files):
        low, high = total * part // files, total * (part + 1) // files
        db.execute(
            f"COPY (SELECT event.* FROM ordered WHERE place > {low} AND place <= {high} ORDER BY place) "
            f"TO '{out}/part-{part}.ndjson' (FORMAT json)"
        )
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--first", default="2018-07-01", help="the first of its 92 days")
    arguments = parser.parse_args()
    print(write(arguments.out, arguments.devices, arguments.files, arguments.seed, arguments.first), "lines")
