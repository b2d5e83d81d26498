"""Compares `ameles metric` with DuckDB over the raw lines, metric by metric.

    python compare_metrics.py AMELES HOME 'GLOB' [--erased FILE] [--quick]

FILE is the CSV (kind,identifier) that was given to `ameles erase submit`.
Exits with 1 and the first differences where they disagree.
"""

import argparse
import csv
import io
import subprocess
import sys
import time

from metrics_by_duckdb import DIMENSIONS, Reference


def ask(ameles, home, name, options):
    """The answer's rows as tuples of text, `complete` left out."""
    command = [ameles, "--home", home, "metric", name, "--k", "1", "--format", "csv", *options]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = list(csv.reader(io.StringIO(out)))
    header, body = rows[0], rows[1:]
    keep = [i for i, column in enumerate(header) if column != "complete"]
    return [tuple(row[i] for i in keep) for row in body]


def text(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    return str(value)


def normal(rows, last_is_float):
    def cell(row, i):
        return f"{float(row[i]):.9g}" if last_is_float and i == len(row) - 1 else text(row[i])

    return sorted(tuple(cell(row, i) for i in range(len(row))) for row in rows)


def cases(quick):
    """(name, keyword arguments of the reference, options of the command)."""
    plain = ["activations", "installed_base", "dau", "wau", "mau28", "mau", "stickiness", "wakes", "retention", "growth"]
    groupings = [[], *[[d] for d in DIMENSIONS], ["country", "product"]]
    if quick:
        groupings = [[], ["country"], ["country", "product"]]
    for name in plain:
        for by in groupings:
            yield name, {"by": by}, (["--by", ",".join(by)] if by else [])
        yield name, {"where": "product NOT IN ('phone', 'laptop')"}, ["--filter", "product!=phone,laptop"]
        yield name, {"by": ["product"], "where": "country IN ('DE', 'PT') AND product <> 'tv'"}, ["--by", "product", "--filter", "country=DE,PT", "--filter", "product!=tv"]
    for name in ("activations", "wakes"):
        for grain in ("week", "month"):
            yield name, {"grain": grain, "by": ["country"]}, ["--grain", grain, "--by", "country"]
    for by in ([], ["country"]):
        options = ["--by", ",".join(by)] if by else []
        yield "wakes", {"cumulative": True, "by": by}, ["--cumulative", *options]
        yield "installed_base", {"active_in": 14, "by": by}, ["--active-in", "14", *options]
        for name in ("dau", "wau", "mau28", "mau", "stickiness"):
            yield name, {"unit": "user", "by": by}, ["--unit", "user", *options]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ameles")
    parser.add_argument("home")
    parser.add_argument("pattern")
    parser.add_argument("--erased")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    erased = {"device": [], "user": []}
    if arguments.erased:
        with open(arguments.erased, newline="") as file:
            for row in csv.DictReader(file):
                erased[row["kind"]].append(row["identifier"])
    reference = Reference(arguments.pattern, erased["device"], erased["user"])
    print(f"received {reference.received}, no_consent {reference.no_consent}, accepted {reference.accepted}")
    failed = compared = 0
    spent = 0.0
    for name, wanted, options in cases(arguments.quick):
        start = time.monotonic()
        mine = normal(ask(arguments.ameles, arguments.home, name, options), name in ("stickiness", "retention"))
        spent += time.monotonic() - start
        theirs = normal(reference.metric(name, **wanted), name in ("stickiness", "retention"))
        compared += len(theirs)
        if mine != theirs or not theirs:
            failed += 1
            missing, extra = sorted(set(theirs) - set(mine)), sorted(set(mine) - set(theirs))
            print(f"DIFFERS {name} {' '.join(options)}: {len(mine)} rows, expected {len(theirs)}; missing {missing[:3]}; extra {extra[:3]}")
    print(f"{compared} values compared, {failed} answers differ, {spent:.1f} s in ameles")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
