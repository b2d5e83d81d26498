"""One import of a folder of events by chDB or DuckDB, in a process of its own.

    python peers.py chdb|duckdb FOLDER OUT

Prints the rows that it has stored. Both hash device and user under a key each
(HMAC-SHA-256, the first 16 bytes), sort by device and time, part by month and
compress. Neither checks what the contract asks, nor consent, nor repeats.
"""

import hashlib
import hmac
import os
import sys

KEYS = {"device": bytes([0x5A] * 32), "user": bytes([0x3C] * 32)}
SPELT = "700000000037"
TEXTS = ("event_id", "device_id", "user_id", "type", "ts", "product", "model", "partner", "country", "firmware")
THREADS = os.cpu_count()


def pads(domain: str) -> tuple[str, str]:
    """The padded key of the inner and the outer hash, in hex (RFC 2104)."""
    key = KEYS[domain].ljust(64, b"\0")
    return bytes(byte ^ 0x36 for byte in key).hex(), bytes(byte ^ 0x5C for byte in key).hex()


def expected(domain: str) -> str:
    return hmac.new(KEYS[domain], SPELT.encode(), hashlib.sha256).digest()[:16].hex()


def chdb(folder: str, out: str) -> int:
    from chdb import session

    def keyed(domain: str, field: str) -> str:
        inner, outer = pads(domain)
        return f"substring(SHA256(concat(unhex('{outer}'), SHA256(concat(unhex('{inner}'), {field})))), 1, 16)"

    db = session.Session(out)
    for domain in KEYS:
        found = str(db.query(f"SELECT lower(hex({keyed(domain, repr(SPELT))}))", "TSVRaw")).strip()
        assert found == expected(domain), (domain, found)
    db.query("CREATE DATABASE fleet ENGINE = Atomic")
    texts = ", ".join(f"{name} LowCardinality(String)" for name in ("type", "product", "model", "partner", "country", "firmware", "room"))
    db.query(
        f"""CREATE TABLE fleet.events (device FixedString(16), ts DateTime64(3, 'UTC'), user Nullable(FixedString(16)),
        event_key FixedString(16), latency_ms Nullable(Int64), {texts})
        ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (device, ts)"""
    )
    columns = ", ".join(f"{name} {'Nullable(String)' if name == 'user_id' else 'String'}" for name in TEXTS)
    db.query(
        f"""INSERT INTO fleet.events (device, ts, user, event_key, latency_ms, type, product, model, partner, country, firmware, room)
        SELECT {keyed("device", "device_id")}, parseDateTime64BestEffort(ts, 3, 'UTC'), {keyed("user", "user_id")},
            unhex(replaceAll(event_id, '-', '')), props.latency_ms, type, product, model, partner, country, firmware, props.room
        FROM file('{folder}/*.ndjson', JSONEachRow, '{columns}, props Tuple(latency_ms Nullable(Int64), room String)')
        SETTINGS input_format_skip_unknown_fields = 1, max_threads = {THREADS}, max_insert_threads = {THREADS},
            max_partitions_per_insert_block = 0"""
    )
    return int(str(db.query("SELECT count() FROM fleet.events", "TSVRaw")))


def duckdb(folder: str, out: str) -> int:
    import duckdb

    def keyed(domain: str, field: str) -> str:
        inner, outer = pads(domain)
        # `sha256` gives hex, `||` joins blobs.
        hashed = f"unhex(sha256(unhex('{inner}') || encode({field})))"
        return f"unhex(sha256(unhex('{outer}') || {hashed})[:32])"

    db = duckdb.connect(config={"threads": THREADS, "preserve_insertion_order": False})
    for domain in KEYS:
        found = db.execute(f"SELECT lower(hex({keyed(domain, repr(SPELT))}))").fetchone()[0]
        assert found == expected(domain), (domain, found)
    columns = ", ".join(f"{name}: 'VARCHAR'" for name in TEXTS)
    rows = db.execute(
        f"""COPY (
            SELECT {keyed("device", "device_id")} AS device, ts::TIMESTAMP AS ts, {keyed("user", "user_id")} AS user,
                unhex(replace(event_id, '-', '')) AS event_key, props.latency_ms AS latency_ms,
                type, product, model, partner, country, firmware, props.room AS room, date_trunc('month', ts::TIMESTAMP)::DATE AS month
            FROM read_json('{folder}/*.ndjson', format = 'newline_delimited',
                columns = {{{columns}, props: 'STRUCT(latency_ms BIGINT, room VARCHAR)'}})
            ORDER BY month, device, ts
        ) TO '{out}' (FORMAT parquet, PARTITION_BY (month), COMPRESSION zstd)"""
    ).fetchone()[0]
    return rows


if __name__ == "__main__":
    print({"chdb": chdb, "duckdb": duckdb}[sys.argv[1]](sys.argv[2], sys.argv[3]))
