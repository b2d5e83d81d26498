"""Ameles beside chDB and DuckDB: one folder of events into sorted, compressed columns.

    python compare.py FLEET --ameles target/release/ameles [--rounds 3] [--write docs/benchmarks.md]

The sides take turns in one run, each in a process of its own, over files that
the page cache holds. Medians of wall clock, processor time and peak memory.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import tables

HERE = pathlib.Path(__file__).parent
SIDES = {"chdb": "chDB", "duckdb": "DuckDB", "ameles": "Ameles"}
SCRATCH_FACTOR = 2  # of the input's size, free on the disk before a run


def run(command: list[str]) -> tuple[dict, str]:
    """Wall clock, processor time and peak memory of a process and its children, and what it printed."""
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{command[0]} ended with {process.returncode}")
        out.seek(0)
        return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024}, out.read().decode()


def import_once(side: str, fleet: pathlib.Path, scratch: pathlib.Path, ameles: str, lines: int) -> tuple[dict, str]:
    """One import; gives its costs and what is to be said of its rows."""
    out = scratch / side
    if side == "ameles":
        subprocess.run([ameles, "--home", out, "init"], check=True, stderr=subprocess.DEVNULL)
        costs, printed = run([ameles, "--home", str(out), "ingest", str(fleet), "--json"])
        tally = json.loads(printed.strip().splitlines()[-1])
        rejected = {reason: count for reason, count in sorted(tally["rejected"].items()) if count}
        assert tally["received"] == lines == tally["accepted"] + sum(rejected.values()), (tally, lines)
        stored = ", ".join([f"{tally['accepted']:,} accepted"] + [f"{count:,} {reason}" for reason, count in rejected.items()])
    else:
        costs, printed = run([sys.executable, str(HERE / "peers.py"), side, str(fleet), str(out)])
        assert int(printed) == lines, (side, printed, lines)
        stored = f"{lines:,}"
    costs["disk"] = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    return costs, stored


def warm(fleet: pathlib.Path) -> tuple[int, int]:
    """Reads every file, and counts lines and bytes."""
    lines = size = 0
    for path in sorted(fleet.glob("*.ndjson")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                lines += chunk.count(b"\n")
                size += len(chunk)
    return lines, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", type=pathlib.Path)
    parser.add_argument("--ameles", default="target/release/ameles")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=pathlib.Path, help="where the imports go: a folder on the disk that counts")
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    lines, size = warm(arguments.fleet)
    results: dict[str, list[dict]] = {side: [] for side in SIDES}
    stored = {}
    with tempfile.TemporaryDirectory(prefix="ameles-bench-", dir=arguments.scratch or arguments.fleet.parent) as folder:
        if shutil.disk_usage(folder).free < SCRATCH_FACTOR * size:
            raise SystemExit(f"{folder} has too little room for what is imported; name another with --scratch")
        for number in range(arguments.rounds):
            for side in SIDES:
                scratch = pathlib.Path(folder) / str(number)
                scratch.mkdir(exist_ok=True)
                costs, stored[side] = import_once(side, arguments.fleet, scratch, arguments.ameles, lines)
                results[side].append(costs)
                print(f"round {number + 1}, {SIDES[side]}: {costs['wall']:.2f} s, {costs['cpu']:.2f} s of processor", file=sys.stderr)
                shutil.rmtree(scratch)
    median = {side: {what: statistics.median(costs[what] for costs in runs) for what in runs[0]} for side, runs in results.items()}
    rows = []
    for side, costs in median.items():
        walls = [run["wall"] for run in results[side]]
        rows.append(
            [
                SIDES[side],
                f"{costs['wall']:.2f} ({min(walls):.2f} to {max(walls):.2f})",
                f"{costs['cpu']:.2f}",
                f"{lines / costs['wall'] / 1e6:.2f} M",
                f"{costs['rss']:,.0f}",
                f"{costs['disk']:,.0f}",
                f"{costs['wall'] / median['ameles']['wall']:.2f}",
                f"{costs['cpu'] / median['ameles']['cpu']:.2f}",
                stored[side],
            ]
        )
    head = ["", "wall s, median", "processor s", "events/s", "peak MiB", "disk MiB", "wall / Ameles", "processor / Ameles", "rows"]
    text = (
        f"{lines:,} events, {size / 2**20:,.0f} MiB in {len(list(arguments.fleet.glob('*.ndjson')))} files; {arguments.rounds} rounds;"
        f" {tables.machine()}; {datetime.date.today()}.\n\n" + tables.markdown(head, rows)
    )
    tables.put(text, "whole process", arguments.write)


if __name__ == "__main__":
    main()
