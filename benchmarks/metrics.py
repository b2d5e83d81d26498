"""Metrics of one warehouse: `ameles serve` beside DuckDB on the same Parquet of `events`.

    python metrics.py HOME --ameles target/release/ameles [--rounds 5] [--write docs/benchmarks.md]

HOME is as `ameles ingest` left it. Ameles is a server that has started and keeps
no answers (`server.kept_mb = 0`): each question opens a view of the tables,
counts, and comes back over HTTP, to an analyst (groups of at least ten) and to
the compliance role (all of them). DuckDB is a process that has read each file
once. The sides take turns; medians. Answers without a dimension are compared.
"""

import argparse
import datetime
import json
import os
import pathlib
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

import duckdb
import tables

METRICS = ["dau", "wau", "mau28", "mau", "retention", "growth"]
DIMENSIONS = [None, "country", "product"]
WINDOWS = {"wau": 7, "mau28": 28}


def duckdb_query(metric: str, by: str | None, events: str) -> str:
    """The metric as somebody would ask it of raw events, by each event's own attribute."""
    one, of = (f"{by}, ", f", {by}") if by else ("", "")
    days = f"SELECT DISTINCT device, ts::DATE AS day{of} FROM {events}"
    months = f"SELECT DISTINCT device, date_trunc('month', ts)::DATE AS month{of} FROM {events}"
    if metric == "dau":
        return f"SELECT ts::DATE AS day, {one}count(DISTINCT device) FROM {events} GROUP BY ALL ORDER BY ALL"
    if metric == "mau":
        return f"SELECT date_trunc('month', ts)::DATE AS month, {one}count(DISTINCT device) FROM {events} GROUP BY ALL ORDER BY ALL"
    if metric in WINDOWS:
        return f"""SELECT day + i::INTEGER AS day, {one}count(DISTINCT device) FROM ({days}) CROSS JOIN range({WINDOWS[metric]}) w(i)
            GROUP BY ALL ORDER BY ALL"""
    if metric == "retention":
        first = f"arg_min({by}, ts) AS {by}, " if by else ""
        return f"""WITH cohort AS (SELECT device, {first}date_trunc('month', min(ts))::DATE AS month FROM {events} WHERE type = 'activate' GROUP BY device)
            SELECT c.month, {f"c.{by}, " if by else ""}a.month, count(*) FROM cohort c
            JOIN (SELECT DISTINCT device, date_trunc('month', ts)::DATE AS month FROM {events}) a ON a.device = c.device AND a.month >= c.month
            GROUP BY ALL ORDER BY ALL"""
    return f"""WITH m AS ({months}), w AS (SELECT *, lag(month) OVER (PARTITION BY device{of} ORDER BY month) AS before FROM m)
        SELECT month, {one}count(*) FILTER (before IS NULL), count(*) FILTER (before = month - INTERVAL 1 MONTH),
        count(*) FILTER (before < month - INTERVAL 1 MONTH) FROM w GROUP BY ALL ORDER BY ALL"""


class Server:
    """`ameles serve` of a home, and tokens for it."""

    def __init__(self, ameles: str, home: pathlib.Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.tokens = {}
        for role in ("analyst", "compliance"):
            made = subprocess.run([ameles, "-q", "--home", home, "token", "create", "--role", role, f"bench-{role}-{port}", "--json"], check=True, capture_output=True)
            made = json.loads(made.stdout)
            self.tokens[role] = made["token"]
        environment = os.environ | {"AMELES__SERVER__KEPT_MB": "0", "AMELES__SERVER__LISTEN": f"127.0.0.1:{port}", "AMELES__MAINTENANCE__INTERVAL_S": "3600"}
        self.process = subprocess.Popen([ameles, "-q", "--home", str(home), "serve"], env=environment)
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{self.address}/readyz", timeout=1).read()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("ameles serve does not answer")

    def ask(self, role: str, metric: str, by: str | None):
        question = f"{self.address}/v1/metrics/{metric}?" + (f"by={by}&" if by else "") + ("k=1" if role == "compliance" else "")
        request = urllib.request.Request(question, headers={"Authorization": f"Bearer {self.tokens[role]}", "Accept": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


def timed(work) -> tuple[float, object]:
    started = time.perf_counter()
    answer = work()
    return (time.perf_counter() - started) * 1e3, answer


def compare(metric: str, ours, theirs: list[tuple]) -> None:
    """Numbers by date must be the same where both have them."""
    if metric in ("retention", "growth"):
        return
    found = {row["date"]: row["value"] if "value" in row else row["devices"] for row in ours}
    wanted = {str(row[0]): row[-1] for row in theirs}
    common = found.keys() & wanted.keys()
    assert len(common) >= 3 and all(found[day] == wanted[day] for day in common), metric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=pathlib.Path)
    parser.add_argument("--ameles", default="target/release/ameles")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    events = f"read_parquet('{arguments.home}/warehouse/events/month=*/*.parquet', hive_partitioning = false)"
    total = duckdb.execute(f"SELECT count(*), count(DISTINCT device) FROM {events}").fetchone()
    duckdb.execute("SET TimeZone = 'UTC'")
    server = Server(arguments.ameles, arguments.home)
    rows = []
    try:
        for by in DIMENSIONS:
            for metric in METRICS:
                walls: dict[str, list[float]] = {"analyst": [], "compliance": [], "duckdb": []}
                query = duckdb_query(metric, by, events)
                for number in range(arguments.rounds + 1):
                    # The slower side is asked less often.
                    if number < max(2, arguments.rounds // 2):
                        wall, theirs = timed(lambda: duckdb.execute(query).fetchall())
                        walls["duckdb"].append(wall)
                    for role in ("analyst", "compliance"):
                        wall, ours = timed(lambda: server.ask(role, metric, by))
                        # The first question reads footers.
                        if number > 0:
                            walls[role].append(wall)
                    if by is None and number == 0:
                        compare(metric, ours, theirs)
                median = {side: statistics.median(of) for side, of in walls.items()}
                name = metric if by is None else f"{metric} by {by}"
                ratio = median["duckdb"] / median["analyst"], median["duckdb"] / median["compliance"]
                rows.append([name, f"{median['analyst']:.1f}", f"{median['compliance']:.1f}", f"{median['duckdb']:,.0f}", f"{ratio[0]:,.0f}", f"{ratio[1]:,.0f}"])
                print(", ".join(rows[-1]), flush=True)
    finally:
        server.stop()
    head = ["", "analyst, ms", "compliance, ms", "DuckDB, ms", "DuckDB / analyst", "DuckDB / compliance"]
    about = f"{total[0]:,} events of {total[1]:,} devices; DuckDB {duckdb.__version__}; medians; {tables.machine()}; {datetime.date.today()}.\n\n"
    tables.put(about + tables.markdown(head, rows), "metrics", arguments.write)


if __name__ == "__main__":
    main()
