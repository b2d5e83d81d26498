"""Metrics over 132 million devices, beside DuckDB on the same Parquet files.

    python fleet.py HOME --ameles target/release/ameles [--rounds 3] [--write docs/benchmarks.md]

HOME is made by `ameles simulate --fleet` where it is missing. Ameles answers in
a process of its own, from its start to its end, without the smallest group;
DuckDB is a process that has started already and has read each file once. Its
queries are those of somebody who knows that a row is a device's month and a
bit its day; `daily rows` are what the same month is to somebody who does not:
one row for each device and day, whose devices have to be told apart.
"""

import argparse
import datetime
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import tables

DEVICES = 132_000_000
GIB = 2**30
BYTES_PER_DEVICE = 145
FREE_AFTER = 4 * GIB
DAILY_BYTES_PER_DEVICE = 90


def simulate(home: pathlib.Path, ameles: str, devices: int) -> None:
    free = shutil.disk_usage(home.parent).free
    if free < devices * BYTES_PER_DEVICE + FREE_AFTER:
        raise SystemExit(f"{home} has {free / GIB:.0f} GiB of room; {devices:,} devices take {devices * BYTES_PER_DEVICE / GIB:.0f}")
    subprocess.run([ameles, "--home", home, "init"], check=True)
    subprocess.run([ameles, "--home", home, "simulate", "--fleet", "--devices", str(devices)], check=True)


class Fleet:
    """The files of the home's tables by month, and the days of the last month."""

    def __init__(self, home: pathlib.Path):
        self.warehouse = home / "warehouse"
        partitions = sorted(path.name.removeprefix("month=") for path in (self.warehouse / "activity").glob("month=*"))
        self.months = [datetime.date.fromisoformat(name) for name in partitions]
        self.first = self.months[0]
        self.month = self.months[-1]

    def files(self, month: datetime.date) -> str:
        return f"read_parquet('{self.warehouse}/activity/month={month}/*.parquet')"

    @staticmethod
    def last_day(month: datetime.date) -> datetime.date:
        return (month.replace(day=28) + datetime.timedelta(days=4)).replace(day=1) - datetime.timedelta(days=1)


def timed(rounds: int, work) -> tuple[list[float], object]:
    walls, answer = [], None
    for _ in range(rounds):
        started = time.perf_counter()
        answer = work()
        walls.append(time.perf_counter() - started)
    return walls, answer


def metric(home: pathlib.Path, ameles: str, limit: int, *arguments: str):
    """The rows of a metric; a text where there are none in time."""
    command = [ameles, "--quiet", "--home", str(home), "metric", *arguments, "--k", "1", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"not within {limit} s"
    if done.returncode != 0:
        return done.stderr.decode().strip().splitlines()[-1].removeprefix("error: ")
    return json.loads(done.stdout)


def questions(fleet: Fleet) -> list[tuple[str, list[str], str]]:
    """What is asked: its name, the metric's arguments, and the name of DuckDB's query."""
    month = ["--from", str(fleet.month), "--to", str(Fleet.last_day(fleet.month))]
    only = ["--from", str(fleet.month), "--to", str(fleet.month)]
    never = ["--from", "2999-01-01", "--to", "2999-01-31"]
    return [
        ("opening the home", ["--list"], ""),
        ("a period without data", ["mau", *never], ""),
        ("mau", ["mau", *only], "mau"),
        ("mau by country", ["mau", "--by", "country", *only], "mau by country"),
        ("mau by model", ["mau", "--by", "model", *only], "mau by model"),
        ("mau of a country by product", ["mau", "--by", "product", "--filter", "country=DE", *only], ""),
        ("mau of users", ["mau", "--unit", "user", *only], ""),
        ("mau, all months", ["mau"], ""),
        ("dau, a month", ["dau", *month], "dau"),
        ("dau by country, a month", ["dau", "--by", "country", *month], "dau by country"),
        ("dau, a year", ["dau"], ""),
        ("mau28, a month", ["mau28", *month], "mau28"),
        ("mau28, a year", ["mau28"], ""),
        ("wau, a month", ["wau", *month], ""),
        ("stickiness, a month", ["stickiness", *month], ""),
        ("wakes, a month", ["wakes", *month], "wakes"),
        ("wakes by country, a month", ["wakes", "--by", "country", *month], ""),
        ("wakes to date", ["wakes", "--cumulative", *month], ""),
        ("activations, a month", ["activations", *month], ""),
        ("installed base, a month", ["installed_base", *month], ""),
        ("retention", ["retention"], ""),
        ("growth, a month", ["growth", *only], ""),
    ]


def duckdb_queries(fleet: Fleet) -> dict[str, str]:
    days = range(Fleet.last_day(fleet.month).day)
    month, before = fleet.files(fleet.month), fleet.files(fleet.months[-2])
    before_days = Fleet.last_day(fleet.months[-2]).day
    bits = ", ".join(f"sum((days >> {day}) & 1)" for day in days)
    # A device's two months as one number, the later month's first day at `before_days`; a window is 28 of its bits.
    windows = ", ".join(f"count(*) FILTER ((pair >> {before_days + day - 27}) & 268435455 != 0)" for day in days)
    wakes = ", ".join(f"sum(CASE WHEN (days >> {day}) & 1 = 1 THEN wakes[bit_count(days & {(2 << day) - 1})] END)" for day in days)
    return {
        "mau": f"SELECT count(*) FROM {month}",
        "mau by country": f"SELECT country, count(*) FROM {month} GROUP BY country",
        "mau by model": f"SELECT model, count(*) FROM {month} GROUP BY model",
        "dau": f"SELECT {bits} FROM {month}",
        "dau by country": f"SELECT country, {bits} FROM {month} GROUP BY country",
        "wakes": f"SELECT {wakes} FROM {month}",
        "mau28": f"""SELECT {windows} FROM (
            SELECT coalesce(a.days, 0)::BIGINT | (coalesce(b.days, 0)::BIGINT << {before_days}) AS pair
            FROM (SELECT device, days FROM {before}) a FULL JOIN (SELECT device, days FROM {month}) b USING (device))""",
    }


DAILY = {
    "mau": "SELECT count(DISTINCT device) FROM '{0}'",
    "mau by country": "SELECT country, count(DISTINCT device) FROM '{0}' GROUP BY country",
    "dau": "SELECT day, count(DISTINCT device) FROM '{0}' GROUP BY day ORDER BY day",
}


def in_common(rows) -> dict:
    """An answer of either side as values by group and day of the month."""
    answer = {}
    for row in rows:
        if isinstance(row, dict):
            group = next((row[column] for column in ("country", "model") if column in row), None)
            answer[group, int(row["date"][8:]) - 1] = row["value"]
        elif len(row) == 2 and isinstance(row[0], int):
            answer[None, row[0]] = row[1]
        else:
            group, values = (row[0], row[1:]) if len(row) > 1 and not isinstance(row[0], int) else (None, row)
            answer.update({(group, day): int(value) for day, value in enumerate(values) if value})
    return answer


def seconds(walls: list[float] | None) -> str:
    return "" if not walls else f"{statistics.median(walls):.3f}"


def main() -> None:
    import duckdb

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=pathlib.Path)
    parser.add_argument("--ameles", default="target/release/ameles")
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=120, help="seconds that one answer may take")
    parser.add_argument("--only", help="questions whose name begins so")
    parser.add_argument("--scratch", type=pathlib.Path, help="where the daily rows go")
    parser.add_argument("--no-daily", action="store_true", help="leave out the daily rows, which take gigabytes of disk")
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    if not (arguments.home / "ameles.toml").exists():
        simulate(arguments.home, arguments.ameles, arguments.devices)
    fleet = Fleet(arguments.home)
    asked = [question for question in questions(fleet) if question[0].startswith(arguments.only or "")]
    db = duckdb.connect(config={"preserve_insertion_order": False, "memory_limit": "60%"})
    queries = duckdb_queries(fleet)
    with tempfile.TemporaryDirectory(prefix="ameles-bench-", dir=arguments.scratch or arguments.home.parent) as folder:
        db.execute(f"SET temp_directory = '{folder}/spill'")
        actives = db.execute(queries["mau"]).fetchone()[0]
        daily, daily_rows = None, 0
        if not arguments.no_daily and shutil.disk_usage(folder).free > actives * DAILY_BYTES_PER_DEVICE + FREE_AFTER:
            daily = f"{folder}/daily.parquet"
            print("writing the daily rows", file=sys.stderr)
            daily_rows = db.execute(
                f"""COPY (SELECT device, country, unnest(list_filter(range(31), lambda bit: (days >> bit) & 1 = 1))::TINYINT AS day
                FROM {fleet.files(fleet.month)}) TO '{daily}' (FORMAT parquet, COMPRESSION zstd)"""
            ).fetchone()[0]
        rows = []
        for name, words, query in asked:
            if words == ["--list"]:
                walls, answer = timed(arguments.rounds, lambda: subprocess.run(
                    [arguments.ameles, "--home", str(arguments.home), "metric", "--list"], check=True, capture_output=True) and [])
            else:
                ask = lambda: metric(arguments.home, arguments.ameles, arguments.limit, *words)
                walls, answer = timed(1, ask)
                # What takes long is not asked again; of the others the first answer read the files, and is not counted.
                if not isinstance(answer, str) and walls[0] < arguments.limit / 6:
                    walls, answer = timed(arguments.rounds, ask)
            theirs = theirs_daily = None
            if query:
                theirs, found = timed(arguments.rounds, lambda: db.execute(queries[query]).fetchall())
                if not isinstance(answer, str):
                    assert in_common(answer) == in_common(found), name
                if daily and query in DAILY:
                    theirs_daily, found_daily = timed(1, lambda: db.execute(DAILY[query].format(daily)).fetchall())
                    assert in_common(found_daily) == in_common(found), name
            if isinstance(answer, str):
                print(f"{name}: {answer}", file=sys.stderr)
                rows.append([name, "no answer", seconds(theirs), "", seconds(theirs_daily), ""])
                continue
            ours = statistics.median(walls)
            ratio = lambda walls: f"{statistics.median(walls) / ours:.1f}" if walls else ""
            rows.append([name, seconds(walls), seconds(theirs), ratio(theirs), seconds(theirs_daily), ratio(theirs_daily)])
            print(f"{name}: {seconds(walls)} s, DuckDB {seconds(theirs)} s, daily rows {seconds(theirs_daily)} s", file=sys.stderr)
    size = sum(path.stat().st_size for path in fleet.warehouse.rglob("*.parquet"))
    of_daily = f", {daily_rows:,} daily rows of it" if daily else ""
    text = (
        f"{actives:,} devices active in {fleet.month:%Y-%m}{of_daily}, {len(fleet.months)} months, {size / GIB:.1f} GiB; DuckDB {duckdb.__version__};"
        f" medians of {arguments.rounds} rounds, seconds; {tables.machine()}; {datetime.date.today()}.\n\n"
    )
    head = ["", "Ameles", "DuckDB, same files", "DuckDB / Ameles", "DuckDB, daily rows", "daily / Ameles"]
    tables.put(text + tables.markdown(head, rows), "fleet", arguments.write, "make bench-fleet")


if __name__ == "__main__":
    main()
