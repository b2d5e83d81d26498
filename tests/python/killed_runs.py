"""Erasure runs killed at random moments and resumed, while ingest, settling and compaction go on over the same home.

    python killed_runs.py AMELES HOME --runs 200 [--seed 1] [--check-every 20]

HOME is new and empty. In a round some subjects are submitted, and `erase run` works beside an `ingest` that appends
files (killed as well, now and then), or `serve`, which takes events over HTTP and maintains the tables, carries the
erasure out; whoever erases is killed with SIGKILL at a moment drawn from the length of a run, and what is left is
resumed to its end. Lines of erased subjects are sent again. Then everything is held against an expectation that
DuckDB makes from the raw lines: residues in any file, rows by value, subjects that came back, metrics. A round counts
when the kill left a run unfinished. Fails at the first difference; prints figures.
"""

import argparse
import csv
import datetime
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import fleet
from killed_runs_check import Expectation
from traces import everywhere, planted

HERE = pathlib.Path(__file__).parent
# Maintenance and erasure come round as often as they can, and runs are merged as soon as there are three.
SETTINGS = {
    "AMELES__MAINTENANCE__INTERVAL_S": "1",
    "AMELES__MAINTENANCE__RUNS_MAX": "2",
    "AMELES__ERASURE__INTERVAL_S": "2",
}


class Ameles:
    """The binary over one home."""

    def __init__(self, binary: str, home: pathlib.Path, dice: random.Random):
        self.command, self.dice, self.home = [binary, "--home", str(home)], dice, home

    def start(self, *arguments: str, **more) -> subprocess.Popen:
        # Files that were replaced are spared for a second at times, so that a run also dies while it waits.
        grace = self.dice.choice(["0", "0", "0", "1"])
        environment = os.environ | SETTINGS | {"AMELES__ERASURE__PURGE_GRACE_S": grace, "TMPDIR": str(self.home.parent)}
        with open(self.home.parent / "ameles.log", "ab") as log:
            return subprocess.Popen([*self.command, *arguments], env=environment, stderr=log, **more)

    def run(self, *arguments: str, typed: str = "") -> dict:
        process = self.start(*arguments, "--json", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        out, _ = process.communicate(typed, timeout=300)
        assert process.returncode == 0, f"{arguments} ended with {process.returncode}: {out}; see {self.home.parent}/ameles.log"
        return json.loads(out)


def killed(process: subprocess.Popen) -> bool:
    """Kills; tells whether the process was still at work."""
    at_work = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return at_work


class Server:
    """`ameles serve`, and a thread that posts events to it until it is told to stop."""

    def __init__(self, ameles: Ameles, live: "Live"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.base, self.live = f"http://127.0.0.1:{port}", live
        self.process = ameles.start("serve", "--listen", f"127.0.0.1:{port}", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.base}/readyz").read()
                break
            except OSError:
                assert self.process.poll() is None, "serve ended"
                time.sleep(0.05)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.feed)
        self.thread.start()

    def feed(self) -> None:
        while not self.stopping.is_set():
            self.live.post(self.base)
            time.sleep(0.02)

    def kill(self) -> None:
        killed(self.process)
        self.stopping.set()
        self.thread.join()

    def stop(self) -> None:
        """Ends it as a service manager does, with all that was to be posted."""
        self.stopping.set()
        self.thread.join()
        for _ in range(300):
            if not self.live.unsent:
                break
            self.live.post(self.base, new=False)
            time.sleep(0.02)
        assert not self.live.unsent, "the server takes no events"
        self.process.terminate()
        assert self.process.wait(60) == 0, "serve did not end well"


class Live:
    """Events of the present month, each posted until it was answered; none without a user where a device has users."""

    def __init__(self, ameles: Ameles, events: list[dict], path: pathlib.Path):
        self.token = ameles.run("token", "create", "feeder", "--role", "ingest")["token"]
        self.path, self.dice, self.count, self.last = path, random.Random(5), 0, 0
        self.unsent: list[list[str]] = []
        with_users = {event["device_id"] for event in events if event["user_id"]}
        self.models = [event for event in events if event["user_id"] or event["device_id"] not in with_users]

    def batch(self) -> list[str]:
        lines = []
        for _ in range(self.dice.randrange(1, 12)):
            self.last = max(self.last + 1, time.time_ns() // 1_000_000)
            at = datetime.datetime.fromtimestamp(self.last / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            self.count += 1
            event = self.dice.choice(self.models) | {"event_id": f"live-{self.count}", "type": self.dice.choice(["wake", "heartbeat"]), "ts": at}
            lines.append(json.dumps(event, separators=(",", ":")) + "\n")
        with open(self.path, "a") as file:
            file.writelines(lines)
        return lines

    def post(self, base: str, new: bool = True) -> None:
        if not self.unsent and new:
            self.unsent.append(self.batch())
        if not self.unsent:
            return
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/x-ndjson"}
        request = urllib.request.Request(f"{base}/v1/events", "".join(self.unsent[0]).encode(), headers)
        try:
            reply = json.load(urllib.request.urlopen(request, timeout=60))
        except urllib.error.HTTPError as error:
            assert error.code in (429, 503), error
            return
        except (OSError, ValueError):
            return  # killed: whether it was taken is not known, so it is sent again
        rejected = reply["rejected"]
        assert reply["received"] == reply["accepted"] + sum(rejected.values()) == len(self.unsent[0]), reply
        assert set(rejected) <= {"suppressed", "duplicate"}, reply
        self.unsent.pop(0)


class Rounds:
    def __init__(self, arguments: argparse.Namespace):
        self.dice = random.Random(arguments.seed)
        self.home = arguments.home
        self.folder = self.home.parent
        self.ameles = Ameles(arguments.ameles, self.home, self.dice)
        self.raw = self.folder / "raw"
        self.binary = arguments.ameles
        self.runs = arguments.runs
        first = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=94)).strftime("%Y-%m-%d")
        fleet.write(self.folder / "fleet", min(3000, 300 + 14 * self.runs), 1, arguments.seed, first)
        self.lines = (self.folder / "fleet/part-0.ndjson").read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in self.lines]
        self.parts = self.split(events)
        (self.folder / "more").mkdir()
        self.raw.mkdir()
        assert self.ameles.start("init", stdout=subprocess.DEVNULL).wait() == 0
        self.ingest(self.parts[0], self.raw / "first.ndjson")
        self.ingest([self.broken(line) for line in self.dice.sample(self.lines, 40)], self.folder / "more/broken.jsonl")
        valid = [event for event in events if event["consent"]["policy"] >= "2018-05-25"]
        self.live = Live(self.ameles, valid, self.raw / "live.ndjson")
        self.subjects = {"device": sorted({event["device_id"] for event in valid}), "user": sorted({event["user_id"] or "" for event in valid} - {""})}
        self.of_subject = {"device": "device_id", "user": "user_id"}
        self.events = events
        self.erased: list[tuple[str, str]] = []
        self.expectation = Expectation(f"{self.raw}/*.ndjson", self.home / "warehouse")
        self.would_notice()
        self.figures = {"kills": 0, "own": 0, "served": 0, "late kills": 0, "ingests killed": 0, "resent lines": 0, "files searched": 0, "metrics": 0}
        # How long a run takes, whole: by itself and through a server.
        self.length = {}
        for served in (False, True):
            self.submit(3)
            server = Server(self.ameles, self.live) if served else None
            started = time.monotonic()
            self.ameles.run("erase", "run")
            self.length[served] = time.monotonic() - started
            if server:
                server.stop()

    def would_notice(self) -> None:
        """The checks fail where they should: nobody has been erased yet."""
        planted()
        device = self.subjects["device"][0]
        files, found = everywhere([self.home], {self.expectation.known["device"][device]})
        assert any("column device" in trace for trace in found), f"{files} files and no trace of a device that is there"
        try:
            self.expectation.compare([device], [], [self.home])
        except AssertionError as error:
            assert "back or doubled" in str(error), error
        else:
            raise AssertionError("rows of a device that counts as erased are not noticed")

    def split(self, events: list[dict]) -> list[list[str]]:
        """A first part that has each pair of device and user, and one for each round: who is on a device does not change later."""
        met, parts = set(), [[] for _ in range(1 + 2 * self.runs)]
        for event, line in zip(events, self.lines):
            pair = (event["device_id"], event["user_id"])
            valid = event["consent"]["policy"] >= "2018-05-25"
            later = pair in met and self.dice.random() < 0.4
            parts[self.dice.randrange(1, len(parts)) if later else 0].append(line)
            if valid and not later:
                met.add(pair)
        return parts

    @staticmethod
    def broken(line: str) -> str:
        """Names a device and is refused, so quarantine names the device."""
        event = json.loads(line)
        return json.dumps(event | {"props": {"latency_ms": -1}}) + "\n"

    def ingest(self, lines: list[str], path: pathlib.Path) -> dict:
        path.write_text("".join(lines))
        return self.ameles.run("ingest", str(path))

    def submit(self, count: int) -> None:
        chosen = []
        for _ in range(count):
            kind = self.dice.choice(["device", "device", "user"])
            subject = (kind, self.dice.choice(self.subjects[kind]))
            if subject not in self.erased and subject not in chosen:
                chosen.append(subject)
        # One as it may be typed, the others as a list.
        if not chosen:
            return
        kind, typed = chosen[0]
        self.ameles.run("erase", "submit", f"--{kind}", "-", typed=f" {typed}\t\n")
        if chosen[1:]:
            path = self.folder / "list.csv"
            path.write_text("kind,identifier\n" + "".join(f"{kind},{identifier}\n" for kind, identifier in chosen[1:]))
            self.ameles.run("erase", "submit", "--file", str(path))
        self.erased += chosen

    def adding(self, number: int) -> tuple[subprocess.Popen, pathlib.Path]:
        """An `ingest` that begins now; some are killed on the way."""
        path = self.raw / f"add-{number}.ndjson"
        path.write_text("".join(self.parts[number]))
        ingest = self.ameles.start("ingest", str(path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if self.dice.random() < 0.4:
            threading.Timer(self.dice.uniform(0, 0.4), ingest.kill).start()
        return ingest, path

    def after(self, ingest: subprocess.Popen, path: pathlib.Path) -> None:
        """Waits for an `ingest`; one that was killed goes on."""
        if ingest.wait() != 0:
            assert ingest.returncode == -signal.SIGKILL, f"ingest ended with {ingest.returncode}"
            self.figures["ingests killed"] += 1
            self.ameles.run("ingest", str(path))

    def unfinished(self) -> bool:
        return any(request["state"] in ("pending", "in_progress") for request in self.ameles.run("erase", "list")["requests"])

    def by_itself(self, number: int) -> bool:
        """`erase run` beside `ingest`: whether a kill left it unfinished."""
        ingest, path = self.adding(number)
        self.submit(self.dice.randrange(1, 5))
        hit = False
        for _ in range(self.dice.choice([1, 1, 2, 3])):
            run = self.ameles.start("erase", "run", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            time.sleep(self.dice.uniform(0, self.length[False]))
            if killed(run):
                hit |= self.unfinished()
                self.figures["kills"] += 1
            else:
                assert run.returncode == 0
        self.ameles.run("erase", "run")
        self.after(ingest, path)
        return hit

    def served(self, number: int) -> bool:
        """`serve` carries the run out and takes events, beside another process that ingests now and then."""
        server = Server(self.ameles, self.live)
        ingest, path = self.adding(number)
        self.submit(self.dice.randrange(1, 5))
        hit = False
        for _ in range(self.dice.choice([1, 1, 2])):
            run = self.ameles.start("erase", "run", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            time.sleep(self.dice.uniform(0, self.length[True]))
            # The one that follows would take over at once: at times both die.
            if self.dice.random() < 0.5:
                following = run.poll() is None
                server.kill()
                assert run.wait() == 0, f"erase run ended with {run.returncode}"
                hit |= following
            else:
                killed(run)
                server.kill()
                hit |= self.unfinished()
            self.figures["kills"] += 1
            server = Server(self.ameles, self.live)
        self.ameles.run("erase", "run")
        self.after(ingest, path)
        server.stop()
        return hit

    def resend(self, number: int) -> None:
        """What erased subjects sent, once more, with lines of others that are repeats; another file by its first line."""
        known = {identifier for _, identifier in self.erased}
        mine = [line for event, line in zip(self.events, self.lines) if event["device_id"] in known or event["user_id"] in known]
        lines = self.dice.sample(mine, min(len(mine), 300)) + self.dice.sample(self.parts[0], 50)
        lines.append(self.broken(self.dice.choice(mine)))
        summary = self.ingest([f'{{"again":{number}}}\n', *lines], self.folder / f"more/again-{number}.jsonl")
        assert summary["received"] == summary["accepted"] + sum(summary["rejected"].values()), summary
        assert summary["rejected"]["suppressed"] > 0, summary
        self.figures["resent lines"] += len(lines)

    def check(self, metrics: bool) -> None:
        kinds = [[identifier for kind, identifier in self.erased if kind == wanted] for wanted in ("device", "user")]
        roots = [self.home, pathlib.Path(f"{self.home}.journal")]
        self.figures["files searched"] += self.expectation.compare(*kinds, roots)
        if metrics:
            path = self.folder / "erased.csv"
            with open(path, "w", newline="") as file:
                csv.writer(file).writerows([("kind", "identifier"), *self.erased])
            command = [sys.executable, HERE / "compare_metrics.py", self.binary, self.home, f"{self.raw}/*.ndjson", "--erased", path, "--quick"]
            out = subprocess.run(command, capture_output=True, text=True)
            assert out.returncode == 0, out.stdout + out.stderr
            self.figures["metrics"] += int(out.stdout.split(" values compared")[0].split()[-1])

    def all(self, check_every: int) -> None:
        done = number = 0
        while done < self.runs:
            number += 1
            assert number < len(self.parts), f"only {done} kills of {number - 1} left a run unfinished"
            served = number % 2 == 0
            hit = self.served(number) if served else self.by_itself(number)
            assert not self.unfinished()
            done += hit
            self.figures["served" if served else "own"] += hit
            self.figures["late kills"] += not hit
            if self.dice.random() < 0.5 or done == self.runs:
                self.resend(number)
            if done % check_every == 0 and hit:
                self.check(metrics=True)
                print(f"{done} runs, {self.figures}", file=sys.stderr, flush=True)
        self.check(metrics=True)
        verified = self.ameles.run("erase", "verify")
        assert verified["clean"] is True and verified["remains"] == [], verified
        assert self.ameles.run("audit", "verify")["verdict"] == "intact"
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        print(f"{done} runs resumed; {len(self.erased)} subjects; {figures}; {self.expectation.figures()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("ameles")
    parser.add_argument("home", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check-every", type=int, default=20)
    arguments = parser.parse_args()
    arguments.home = arguments.home.absolute()
    Rounds(arguments).all(arguments.check_every)
