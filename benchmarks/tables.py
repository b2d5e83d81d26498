"""Tables of Markdown; run by itself, the one of the stages that criterion has measured.

    python tables.py [TARGET_DIR] [--write docs/benchmarks.md]
"""

import argparse
import datetime
import json
import os
import pathlib
import platform

# The stages in their order, each with the floor of its group that it stands beside.
STAGES = [
    ("worker", "lines, text", "floor: copy in memory"),
    ("worker", "+ decode, validate", "floor: copy in memory"),
    ("worker", "+ three keyed hashes", None),
    ("worker", "+ admission, columns", None),
    ("worker", "floor: read from the page cache", None),
    ("three hashes", "one after the other", "floor: six compressions"),
    ("three hashes", "side by side", "floor: six compressions"),
    ("three hashes", "sixteen events at once", "floor: six compressions"),
    ("duplicates", "new, in memory", None),
    ("duplicates", "repeats, in memory", None),
    ("duplicates", "new, mostly spilled", None),
    ("duplicates", "repeats, mostly spilled", None),
    ("batch", "sort, gather", None),
    ("batch", "roll up", None),
    ("batch", "encode", "floor: zstd of the same pages"),
    ("commit", "append of 500 events", "floor: one file made durable"),
]


def machine() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    return line(head) + line(["---"] * len(head)) + "".join(map(line, rows))


def put(text: str, name: str, into: pathlib.Path | None, made_by: str = "make bench") -> None:
    """Prints the text, or puts it between its two marks in a page."""
    if into is None:
        print(text)
        return
    page = into.read_text()
    begin, end = f"<!-- {name}: made by `{made_by}` -->\n", f"<!-- end of {name} -->"
    before, rest = page.split(begin)
    into.write_text(before + begin + text.rstrip() + "\n" + end + rest.split(end)[1])


def measured(target: pathlib.Path) -> dict[tuple[str, str], float]:
    """Nanoseconds per event (per commit) by group and stage: medians."""
    found = {}
    for path in target.glob("criterion/*/*/new/benchmark.json"):
        about = json.loads(path.read_text())
        median = json.loads(path.with_name("estimates.json").read_text())["median"]["point_estimate"]
        found[about["group_id"], about["function_id"]] = median / about["throughput"]["Elements"]
    return found


def number(nanoseconds: float | None) -> str:
    return "" if nanoseconds is None else f"{nanoseconds:,.0f}" if nanoseconds >= 10 else f"{nanoseconds:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", type=pathlib.Path, nargs="?", default=os.environ.get("CARGO_TARGET_DIR", "target"))
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    found = measured(pathlib.Path(arguments.target))
    rows = []
    for group, stage, floor in STAGES:
        if (group, stage) not in found:
            continue
        cost, least = found[group, stage], found.get((group, floor))
        beside = floor.removeprefix("floor: ") if floor else ""
        rows.append([group, stage, number(cost), beside, number(least), f"{cost / least:.1f}" if least else ""])
    if not rows:
        raise SystemExit(f"criterion has measured nothing below {arguments.target}: see `make bench`")
    head = ["", "stage", "ns per event", "floor", "ns per event", "stage / floor"]
    put(f"{machine()}; {datetime.date.today()}.\n\n" + markdown(head, rows), "stages", arguments.write)


if __name__ == "__main__":
    main()
