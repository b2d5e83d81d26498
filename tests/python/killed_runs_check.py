"""What a home must hold after erasures: everything, read by other makers' readers, against the raw lines."""

import pathlib

from deltalake import DeltaTable

from metrics_by_duckdb import Reference
from traces import everywhere

# Column of `events`: the same of a raw line.
COLUMNS = {
    "ts": "ts",
    "type": "type",
    "product": "product",
    "model": "model",
    "partner": "partner",
    "country": "country",
    "firmware": "firmware",
    "consent_policy": "consent.policy",
    "props_latency_ms": "props.latency_ms",
    "props_room": "props.room",
}


class Expectation:
    """Knows every device's and user's pseudonym, learned from a warehouse from which nobody has been erased yet."""

    def __init__(self, pattern: str, warehouse: pathlib.Path):
        self.pattern, self.warehouse = pattern, warehouse
        reference = self.read([], [])
        # An event that is alone at its instant is the same on both sides.
        reference.db.execute(
            """
            CREATE TABLE alone AS SELECT ts FROM ev GROUP BY ts HAVING count(*) = 1;
            CREATE TABLE pair AS SELECT e.device_id, s.device, e.user_id, s."user" FROM ev e JOIN alone USING (ts) JOIN stored s USING (ts);
            """
        )
        self.known = {}
        for kind, raw, stored in (("device", "device_id", "device"), ("user", "user_id", '"user"')):
            pairs = reference.rows(f"SELECT DISTINCT {raw}, {stored} FROM pair WHERE {raw} IS NOT NULL")
            self.known[kind] = {identifier: bytes(pseudonym) for identifier, pseudonym in pairs}
            assert len(self.known[kind]) == len(pairs) == len({pseudonym for _, pseudonym in pairs}), "one pseudonym each"
            assert len(pairs) == reference.one(f"SELECT count(DISTINCT {raw}) FROM ev"), "of everybody"
        self.compared = self.searched = 0

    def read(self, devices: list[str], users: list[str]) -> Reference:
        """The raw lines without those who were erased, and the stored rows as `stored`."""
        reference = Reference(self.pattern, devices, users)
        events = DeltaTable(self.warehouse / "events").to_pyarrow_dataset()  # read by name in the statement
        reference.db.execute("SET TimeZone = 'UTC'")
        columns = ", ".join(f'"{name}"' for name in COLUMNS if name != "ts")
        reference.db.execute(f'CREATE TABLE stored AS SELECT device, "user", ts::TIMESTAMP AS ts, {columns} FROM events')
        return reference

    def compare(self, devices: list[str], users: list[str], roots: list[pathlib.Path]) -> int:
        """Fails where a row is lost, changed or back, or a file names somebody who is gone; tells how many files were searched."""
        reference = self.read(devices, users)
        for kind, pairs in self.known.items():
            reference.db.execute(f"CREATE TABLE known_{kind}(id VARCHAR, pseudonym BLOB)")
            reference.db.executemany(f"INSERT INTO known_{kind} VALUES (?, ?)", list(pairs.items()))
        raw = ", ".join(f"e.{path} AS {name}" for name, path in COLUMNS.items())
        reference.db.execute(
            f"""
            CREATE TABLE wanted AS SELECT d.pseudonym AS device, u.pseudonym AS "user", {raw} FROM ev e
            LEFT JOIN known_device d ON d.id = e.device_id LEFT JOIN known_user u ON u.id = e.user_id;
            """
        )
        rows = reference.one("SELECT count(*) FROM wanted")
        for left, right, what in (("wanted", "stored", "lost or changed"), ("stored", "wanted", "back or doubled")):
            differ = reference.rows(f"SELECT * FROM {left} EXCEPT ALL SELECT * FROM {right}")
            assert not differ, f"{len(differ)} rows of {rows} {what}, such as {differ[:3]}"
        gone = {self.known["device"][device] for device in devices} | {self.known["user"][user] for user in users}
        files, found = everywhere(roots, gone)
        assert not found, found
        # Devices that only erased users had: what was refused of them later may be explained in quarantine.
        emptied = {self.known["device"][device] for (device,) in reference.rows("SELECT DISTINCT device_id FROM exclusive")}
        _, found = everywhere(roots, emptied - gone, besides=("quarantine",))
        assert not found, found
        self.compared += rows
        self.searched = len(gone | emptied)
        return files

    def figures(self) -> str:
        return f"{self.compared} rows compared by value, {self.searched} pseudonyms looked for in the end"
