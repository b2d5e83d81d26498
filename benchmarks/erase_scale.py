"""What an erasure costs when the fleet is ten times as large: the same devices out of two fleets over the same months.

    python erase_scale.py [--ameles target/release/ameles] [--devices 253000] [--erase 100] [--write docs/benchmarks.md]

Two fleets are made by `ameles simulate`, one of them with ten times the devices and so ten times the events; a device of the
smaller one does the same in the larger. Each is ingested into a home of its own, and devices of average activity are erased
out of both. Ameles says which pages and bytes it decoded and encoded again, and which it copied: what is encoded again should
follow from who is erased, not from how many others there are. That holds as long as few of them share a page: where the
smaller fleet is so small that every page holds one of them, all of it is encoded again, and only the larger one shows it.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import compare
import tables

DEVICE = re.compile(rb'"device_id":"([^"]+)"')
TIMES = 10
RATIO_MAX = 1.5
# How far from the mean number of events a device of average activity may be.
NEAR = 0.25


def of_average_activity(fleet: pathlib.Path) -> list[bytes]:
    """Devices with about as many lines as the mean device, as they are spelt."""
    counts: collections.Counter = collections.Counter()
    for part in sorted(fleet.glob("*.ndjson")):
        with part.open("rb") as lines:
            counts.update(found.group(1) for line in lines if (found := DEVICE.search(line)))
    mean = counts.total() / len(counts)
    return [device for device, count in counts.items() if abs(count - mean) <= NEAR * mean]


def erase(binary: str, fleet: pathlib.Path, home: pathlib.Path, csv: pathlib.Path) -> tuple[dict, int]:
    """Ingests a fleet into a new home and erases; gives what the run says of itself, and the lines ingested."""
    os.environ["AMELES__ERASURE__PURGE_GRACE_S"] = "0"
    subprocess.run([binary, "--home", home, "init"], check=True, stderr=subprocess.DEVNULL)
    _, printed = compare.run([binary, "-q", "--home", str(home), "ingest", str(fleet), "--json"])
    lines = json.loads(printed.strip().splitlines()[-1])["received"]
    subprocess.run([binary, "-q", "--home", home, "erase", "submit", "--file", csv], check=True, stdout=subprocess.DEVNULL)
    _, printed = compare.run([binary, "-q", "--home", str(home), "erase", "run", "--json"])
    return json.loads(printed.strip().splitlines()[-1]), lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ameles", default="target/release/ameles")
    parser.add_argument("--devices", type=int, default=253_000, help="of the smaller fleet")
    parser.add_argument("--erase", type=int, default=100)
    parser.add_argument("--scratch", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    sizes = [arguments.devices, arguments.devices * TIMES]
    told = []
    with tempfile.TemporaryDirectory(prefix="ameles-erase-scale-", dir=arguments.scratch) as folder:
        scratch = pathlib.Path(folder)
        csv = scratch / "victims.csv"
        for devices, how in zip(sizes, ("none", "zst")):
            fleet, home = scratch / "fleet", scratch / "home"
            fleet.mkdir()
            simulate = ["simulate", "--devices", str(devices), "--files", "2", "--compress", how, "-o", str(fleet)]
            subprocess.run([arguments.ameles, "-q", *simulate], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if not csv.exists():
                average = sorted(of_average_activity(fleet))
                if len(average) < arguments.erase:
                    raise SystemExit(f"{len(average)} devices are of average activity where {arguments.erase} are to be erased")
                victims = average[:: len(average) // arguments.erase][: arguments.erase]
                csv.write_text("kind,identifier\n" + "".join(f"device,{device.decode()}\n" for device in victims))
            told.append(erase(arguments.ameles, fleet, home, csv))
            for made in (fleet, home):
                shutil.rmtree(made)
            for beside in ("key", "journal"):
                pathlib.Path(f"{home}.{beside}").unlink()
    assert told[0][0]["rows_erased"] == told[1][0]["rows_erased"], "the devices do not do the same in both fleets"
    rows = []
    for devices, (run, lines) in zip(sizes, told):
        spliced = run["spliced"]
        rows.append(
            [
                f"{devices:,}",
                f"{lines:,}",
                f"{run['rows_erased']:,}",
                f"{spliced['files']:,}",
                f"{spliced['pages_encoded']:,} of {spliced['pages_encoded'] + spliced['pages_copied']:,}",
                f"{spliced['bytes_encoded'] / 2**20:,.2f}",
                f"{spliced['bytes_copied'] / 2**20:,.2f}",
            ]
        )
    ratio = told[1][0]["spliced"]["bytes_encoded"] / told[0][0]["spliced"]["bytes_encoded"]
    verdict = "within" if ratio <= RATIO_MAX else "not within"
    head = ["devices", "lines", "rows erased", "files spliced", "pages encoded again", "MiB encoded again", "MiB copied"]
    text = f"The same {arguments.erase} devices out of both: {ratio:.2f} times the bytes encoded again, {verdict} a factor of {RATIO_MAX}; "
    text += f"{datetime.date.today()}.\n\n" + tables.markdown(head, rows)
    tables.put(text, "erasure by size", arguments.write)
    if ratio > RATIO_MAX:
        sys.exit(1)


if __name__ == "__main__":
    main()
