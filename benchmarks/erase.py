"""Physical erasure by Ameles beside DuckDB, delta-rs and chDB: the same devices out of the same rows.

    python erase.py FLEET|HOME --ameles target/release/ameles [--devices 100,10000] [--rounds 3] [--write docs/benchmarks.md]

A home (a folder with `ameles.toml`) is copied and never changed; a fleet is ingested first. The peers get
its `events`, sorted as they lie there: DuckDB a folder of Parquet that it rewrites, delta-rs a table that it
deletes from and vacuums, chDB a MergeTree with a mutation that is waited for. Ameles erases from activity,
links and devices as well, purges, cleans the log, verifies and signs a certificate for each device; its time
is that of the whole process, the peers' that of the statements alone. Afterwards all must hold the same rows.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import compare
import tables

PEERS = {"duckdb": "DuckDB, rewrite", "delta": "delta-rs, DELETE and vacuum", "chdb": "chDB, ALTER TABLE … DELETE"}
SPELT = "device_id"


def devices_in(fleet: pathlib.Path, count: int) -> list[str]:
    """Identifiers of devices among the first lines of a fleet's first file, in an order of their own."""
    seen: dict[str, None] = {}
    with min(fleet.glob("*.ndjson")).open() as lines:
        for line in lines:
            seen.setdefault(json.loads(line)[SPELT])
            if len(seen) >= 6 * count:
                break
    devices = list(seen)
    random.Random(7).shuffle(devices)
    if len(devices) < count:
        raise SystemExit(f"the fleet has {len(devices)} devices where {count} are to be erased")
    return devices[:count]


def events(folder: pathlib.Path) -> str:
    return f"read_parquet('{folder}/month=*/*.parquet', hive_partitioning = true)"


def checksum(source: str) -> tuple:
    import duckdb

    query = f"SELECT count(*), count(DISTINCT device), bit_xor(hash(device, epoch_us(ts), type)) FROM {source}"
    return duckdb.execute(query).fetchone()


def copy_home(home: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
    copied = into / "home"
    shutil.copytree(home, copied)
    for beside in ("key", "journal"):
        shutil.copy(f"{home}.{beside}", f"{copied}.{beside}")
    return copied


def prepare(side: str, warehouse: pathlib.Path, out: pathlib.Path) -> None:
    """The rows of `events` as the peer keeps them."""
    import duckdb as db

    rows = f"SELECT * REPLACE (month::VARCHAR AS month) FROM {events(warehouse / 'events')}"
    if side == "duckdb":
        # A file for each month, sorted, as one would keep them.
        for (month,) in db.execute(f"SELECT DISTINCT month FROM ({rows})").fetchall():
            (out / f"month={month}").mkdir(parents=True)
            query = f"SELECT * EXCLUDE month FROM ({rows}) WHERE month = '{month}' ORDER BY device, ts"
            db.execute(f"COPY ({query}) TO '{out}/month={month}/0.parquet' (FORMAT parquet, COMPRESSION zstd)")
    elif side == "delta":
        import deltalake

        reader = db.execute(f"{rows} ORDER BY month, device, ts").to_arrow_reader(1 << 20)
        deltalake.write_deltalake(str(out), reader, partition_by=["month"])
    else:
        from chdb import session

        session_folder = out / "session"
        plain = out / "plain.parquet"
        out.mkdir(parents=True)
        columns = "device, epoch_us(ts) AS us, user, type, product, model, partner, country, firmware, props_latency_ms AS latency, props_room AS room"
        db.execute(f"COPY (SELECT {columns} FROM ({rows}) ORDER BY month, device, ts) TO '{plain}' (FORMAT parquet, COMPRESSION zstd)")
        server = session.Session(str(session_folder))
        server.query("CREATE DATABASE fleet ENGINE = Atomic")
        texts = ", ".join(f"{name} LowCardinality(Nullable(String))" for name in ("type", "product", "model", "partner", "country", "firmware", "room"))
        server.query(
            f"""CREATE TABLE fleet.events (device FixedString(16), ts DateTime64(6, 'UTC'), user Nullable(FixedString(16)),
            latency Nullable(Int64), {texts}) ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (device, ts)"""
        )
        server.query(
            f"""INSERT INTO fleet.events (device, ts, user, latency, type, product, model, partner, country, firmware, room)
            SELECT device, fromUnixTimestamp64Micro(us, 'UTC'), user, latency, type, product, model, partner, country, firmware, room
            FROM file('{plain}', Parquet)"""
        )
        server.query("OPTIMIZE TABLE fleet.events FINAL")
        server.close()
        plain.unlink()


def erase(side: str, out: pathlib.Path, victims: list[bytes]) -> None:
    """Erases by a peer, in this process, and prints the seconds."""
    if side == "duckdb":
        import duckdb as db

        db.execute("CREATE TABLE victims (device BLOB)")
        for victim in range(0, len(victims), 1000):
            part = victims[victim : victim + 1000]
            db.execute(f"INSERT INTO victims VALUES {', '.join(['(?)'] * len(part))}", part)
        started = time.perf_counter()
        for old in sorted(out.glob("month=*/*.parquet")):
            new = old.with_name("new.parquet")
            db.execute(
                f"COPY (SELECT * FROM read_parquet('{old}', hive_partitioning = false) WHERE device NOT IN (SELECT device FROM victims))"
                f" TO '{new}' (FORMAT parquet, COMPRESSION zstd)"
            )
            new.replace(old)
    elif side == "delta":
        import deltalake

        table = deltalake.DeltaTable(str(out))
        wanted = ", ".join(f"X'{victim.hex()}'" for victim in victims)
        started = time.perf_counter()
        table.delete(f"device IN ({wanted})")
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    else:
        from chdb import session

        server = session.Session(str(out / "session"))
        server.query("CREATE TABLE IF NOT EXISTS fleet.victims (device FixedString(16)) ENGINE = Memory")
        for victim in range(0, len(victims), 1000):
            values = ", ".join(f"(unhex('{one.hex()}'))" for one in victims[victim : victim + 1000])
            server.query(f"INSERT INTO fleet.victims VALUES {values}")
        started = time.perf_counter()
        server.query("ALTER TABLE fleet.events DELETE WHERE device IN (SELECT device FROM fleet.victims) SETTINGS mutations_sync = 2")
    print(time.perf_counter() - started)
    if side == "chdb":
        count = "SELECT count(), uniqExact(device), (SELECT count() FROM fleet.events WHERE device IN (SELECT device FROM fleet.victims)) FROM fleet.events"
        print(str(server.query(count, "TSV")).strip().replace("\t", " "))
        server.close()


def by_ameles(binary: str, home: pathlib.Path, csv: pathlib.Path) -> tuple[dict, dict]:
    """One erasure; gives its costs, and what it says of itself."""
    os.environ["AMELES__ERASURE__PURGE_GRACE_S"] = "0"
    subprocess.run([binary, "-q", "--home", home, "erase", "submit", "--file", csv], check=True, stdout=subprocess.DEVNULL)
    costs, printed = compare.run([binary, "-q", "--home", str(home), "erase", "run", "--json"])
    return costs, json.loads(printed.strip().splitlines()[-1])


def main() -> None:
    if sys.argv[1] == "--side":
        side, out, victims = sys.argv[2], pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
        erase(side, out, [bytes.fromhex(line) for line in victims.read_text().split()])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", type=pathlib.Path)
    parser.add_argument("--home", type=pathlib.Path, help="made by `ameles ingest` of the fleet; otherwise one is made")
    parser.add_argument("--ameles", default="target/release/ameles")
    parser.add_argument("--devices", default="100,10000")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    sides = arguments.peers.split(",")
    rows = []
    with tempfile.TemporaryDirectory(prefix="ameles-erase-", dir=arguments.scratch) as folder:
        scratch = pathlib.Path(folder)
        home = arguments.home
        if home is None:
            home = scratch / "made"
            subprocess.run([arguments.ameles, "--home", home, "init"], check=True, stderr=subprocess.DEVNULL)
            subprocess.run([arguments.ameles, "-q", "--home", home, "ingest", arguments.fleet], check=True, stdout=subprocess.DEVNULL)
        for side in sides:
            prepare(side, home / "warehouse", scratch / side)
        all_devices = f"SELECT DISTINCT device FROM {events(home / 'warehouse' / 'events')}"
        total = checksum(events(home / "warehouse" / "events"))
        for count in map(int, arguments.devices.split(",")):
            csv = scratch / "victims.csv"
            csv.write_text("kind,identifier\n" + "".join(f"device,{device}\n" for device in devices_in(arguments.fleet, count)))
            costs: dict[str, list[dict]] = {side: [] for side in [*sides, "ameles"]}
            told = {}
            for number in range(arguments.rounds):
                work = scratch / "work"
                work.mkdir()
                copied = copy_home(home, work)
                cost, told = by_ameles(arguments.ameles, copied, csv)
                costs["ameles"].append(cost)
                left = checksum(events(copied / "warehouse" / "events"))
                assert total[0] - left[0] == told["rows_erased"], (total, left, told["rows_erased"])
                import duckdb as db

                gone = db.execute(f"{all_devices} EXCEPT SELECT DISTINCT device FROM {events(copied / 'warehouse' / 'events')}").fetchall()
                victims = scratch / "victims.txt"
                victims.write_text("\n".join(device.hex() for (device,) in gone))
                for side in sides:
                    out = work / side
                    shutil.copytree(scratch / side, out, symlinks=True)
                    cost, printed = compare.run([sys.executable, __file__, "--side", side, str(out), str(victims)])
                    lines = printed.split("\n")
                    costs[side].append(cost | {"wall": float(lines[0])})
                    if side == "chdb":
                        assert tuple(map(int, lines[1].split())) == (left[0], left[1], 0), (lines, left)
                    else:
                        assert checksum(events(out)) == left, (side, checksum(events(out)), left)
                    shutil.rmtree(out)
                print(f"{count} devices, round {number + 1}: " + ", ".join(f"{side} {runs[-1]['wall']:.2f} s" for side, runs in costs.items()), file=sys.stderr)
                shutil.rmtree(work)
            median = {side: {what: statistics.median(cost[what] for cost in runs) for what in ("wall", "cpu")} for side, runs in costs.items()}
            spliced = told["spliced"]
            for side in [*sides, "ameles"]:
                walls = [cost["wall"] for cost in costs[side]]
                pages = f"{spliced['pages_encoded']:,} of {spliced['pages_encoded'] + spliced['pages_copied']:,}" if side == "ameles" else ""
                size = f"{spliced['bytes_encoded'] / 2**20:,.1f} and {spliced['bytes_copied'] / 2**20:,.1f}" if side == "ameles" else ""
                rows.append(
                    [
                        f"{count:,}",
                        PEERS.get(side, "Ameles"),
                        f"{median[side]['wall']:.2f} ({min(walls):.2f} to {max(walls):.2f})",
                        f"{median[side]['wall'] / median['ameles']['wall']:.1f}",
                        f"{told['rows_erased']:,}",
                        pages,
                        size,
                    ]
                )
    head = ["devices", "", "wall s, median", "wall / Ameles", "rows erased", "pages encoded again", "MiB encoded and copied"]
    text = f"{total[0]:,} events; {arguments.rounds} rounds; {tables.machine()}; {datetime.date.today()}.\n\n" + tables.markdown(head, rows)
    tables.put(text, "erasure", arguments.write)


if __name__ == "__main__":
    main()
