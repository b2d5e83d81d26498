"""Every metric, computed by DuckDB from the raw lines, as PRODUCT defines it."""

import duckdb

DIMENSIONS = ["product", "model", "partner", "country", "firmware"]

COLUMNS = (
    "{event_id: 'VARCHAR', device_id: 'VARCHAR', user_id: 'VARCHAR', type: 'VARCHAR', ts: 'TIMESTAMP', product: 'VARCHAR', "
    "model: 'VARCHAR', partner: 'VARCHAR', country: 'VARCHAR', firmware: 'VARCHAR', "
    "consent: 'STRUCT(policy VARCHAR, purposes VARCHAR[])', props: 'STRUCT(latency_ms BIGINT, room VARCHAR)'}"
)


class Reference:
    """The remaining events of a fleet, and the metrics over them."""

    def __init__(self, pattern, erased_devices=(), erased_users=()):
        self.db = duckdb.connect()
        self.db.execute("SET threads = 2")
        self.db.execute(f"CREATE TABLE raw AS SELECT * FROM read_json('{pattern}', format = 'newline_delimited', columns = {COLUMNS})")
        self.db.execute("CREATE TABLE erased_device(id VARCHAR); CREATE TABLE erased_user(id VARCHAR)")
        for table, ids in (("erased_device", erased_devices), ("erased_user", erased_users)):
            if ids:
                self.db.executemany(f"INSERT INTO {table} VALUES (?)", [[i] for i in ids])
        self.received = self.one("SELECT count(*) FROM raw")
        self.db.execute(
            """
            CREATE TABLE ev AS
            SELECT *, ts::DATE AS day, date_trunc('month', ts)::DATE AS month FROM (
                SELECT DISTINCT ON (device_id, event_id) * FROM raw
                WHERE consent.policy >= '2018-05-25' AND list_contains(consent.purposes, 'analytics'))
            """
        )
        self.no_consent = self.one("SELECT count(*) FROM raw WHERE NOT coalesce(consent.policy >= '2018-05-25', false)")
        self.accepted = self.one("SELECT count(*) FROM ev")
        # A user's erasure takes the events without a user on devices where no other user was seen.
        self.db.execute(
            """
            CREATE TABLE exclusive AS
            SELECT device_id FROM ev GROUP BY device_id
            HAVING count(user_id) > 0 AND bool_and(user_id IS NULL OR user_id IN (SELECT id FROM erased_user));
            DELETE FROM ev WHERE device_id IN (SELECT id FROM erased_device) OR user_id IN (SELECT id FROM erased_user)
                OR (user_id IS NULL AND device_id IN (SELECT device_id FROM exclusive));
            """
        )
        packed = "struct_pack(" + ", ".join(f"{d} := {d}" for d in DIMENSIONS) + ")"
        unpacked = ", ".join(f"x.{d} AS {d}" for d in DIMENSIONS)
        self.db.execute(
            f"""
            CREATE TABLE attribute AS SELECT device_id, month, {unpacked} FROM (
                SELECT device_id, month, {packed} AS x FROM ev
                QUALIFY row_number() OVER (PARTITION BY device_id, month ORDER BY ts DESC, event_id DESC) = 1);
            CREATE TABLE activation AS SELECT device_id, day, month, {unpacked} FROM (
                SELECT device_id, day, month, {packed} AS x FROM ev WHERE type = 'activate'
                QUALIFY row_number() OVER (PARTITION BY device_id ORDER BY ts, event_id) = 1);
            CREATE TABLE active AS SELECT DISTINCT device_id, day, month FROM ev;
            CREATE TABLE link AS SELECT DISTINCT user_id, device_id, day, month FROM ev WHERE user_id IS NOT NULL;
            CREATE TABLE calendar AS SELECT unnest(generate_series(min(day), max(day), INTERVAL 1 DAY))::DATE AS d FROM ev;
            """
        )

    def one(self, sql):
        return self.db.execute(sql).fetchone()[0]

    def rows(self, sql):
        return [tuple(row) for row in self.db.execute(sql).fetchall()]

    def metric(self, name, by=(), where="true", grain="day", unit="device", active_in=None, cumulative=False):
        """Rows (date, dims…, value), sorted, or those of retention and growth; `where` filters the attributes."""
        dims = "".join(f", {d}" for d in by)
        attribute = f"(SELECT * FROM attribute WHERE {where})"
        activation = f"(SELECT * FROM activation WHERE {where})"
        order = f"ORDER BY ALL"
        period = f"date_trunc('{grain}', day)::DATE"
        if name == "activations":
            return self.rows(f"SELECT {period} AS date{dims}, count(*) FROM {activation} GROUP BY ALL {order}")
        if name == "installed_base" and active_in is None:
            return self.running(f"SELECT day{dims}, count(*) AS n FROM {activation} GROUP BY ALL", by)
        if name == "installed_base":
            return self.rows(
                f"SELECT d AS date{dims}, count(DISTINCT device_id) FROM calendar JOIN {activation} a ON a.day <= d "
                f"JOIN (SELECT device_id, day AS seen FROM active) USING (device_id) WHERE seen <= d AND seen > d - {active_in} GROUP BY ALL {order}"
            )
        who, source = ("device_id", "active") if unit == "device" else ("user_id", "link")
        if name == "dau":
            return self.rows(f"SELECT day AS date{dims}, count(DISTINCT {who}) FROM {source} JOIN {attribute} USING (device_id, month) GROUP BY ALL {order}")
        if name == "mau":
            return self.rows(f"SELECT month AS date{dims}, count(DISTINCT {who}) FROM {source} JOIN {attribute} USING (device_id, month) GROUP BY ALL {order}")
        if name in ("wau", "mau28"):
            return self.rolling(7 if name == "wau" else 28, who, source, dims, attribute)
        if name == "stickiness":
            day = {row[:-1]: row[-1] for row in self.metric("dau", by, where, unit=unit)}
            return [row[:-1] + (day[row[:-1]] / row[-1],) for row in self.metric("mau28", by, where, unit=unit) if row[:-1] in day]
        if name == "wakes":
            per = f"SELECT day{dims}, count(*) AS n FROM (SELECT device_id, day, month FROM ev WHERE type = 'wake') JOIN {attribute} USING (device_id, month) GROUP BY ALL"
            if cumulative:
                return self.running(per, by)
            return self.rows(f"SELECT {period} AS date{dims}, sum(n)::BIGINT FROM ({per}) GROUP BY ALL {order}")
        if name == "retention":
            return self.rows(
                f"WITH a AS (SELECT * FROM {activation}), size AS (SELECT month{dims}, count(*) AS total FROM a GROUP BY ALL), "
                f"seen AS (SELECT DISTINCT device_id, month AS m FROM active) "
                f"SELECT a.month AS cohort{dims}, datediff('month', a.month, m) AS k, count(*) AS devices, count(*) / any_value(total) AS rate "
                f"FROM a JOIN seen USING (device_id) JOIN size s ON s.month = a.month {''.join(f' AND s.{d} IS NOT DISTINCT FROM a.{d}' for d in by)} "
                f"WHERE m >= a.month GROUP BY a.month{''.join(f', a.{d}' for d in by)}, k {order}".replace(
                    f"cohort{dims}", "cohort" + "".join(f", a.{d} AS {d}" for d in by)
                )
            )
        if name == "growth":
            return self.rows(
                f"WITH m AS (SELECT DISTINCT device_id, month FROM active), f AS (SELECT device_id, min(month) AS first FROM m GROUP BY ALL), "
                f"kinds AS (SELECT m.month AS date, CASE WHEN m.month = first THEN 'new' WHEN p.month IS NOT NULL THEN 'retained' ELSE 'resurrected' END AS kind, m.device_id, m.month "
                f"  FROM m JOIN f USING (device_id) LEFT JOIN m p ON p.device_id = m.device_id AND p.month = m.month - INTERVAL 1 MONTH "
                f"  UNION ALL SELECT (m.month + INTERVAL 1 MONTH)::DATE, 'churned', m.device_id, m.month FROM m "
                f"  LEFT JOIN m n ON n.device_id = m.device_id AND n.month = m.month + INTERVAL 1 MONTH "
                f"  WHERE n.month IS NULL AND m.month < (SELECT max(month) FROM m)) "
                f"SELECT date{dims}, kind, count(*) FROM kinds JOIN {attribute} USING (device_id, month) GROUP BY ALL {order}"
            )
        raise ValueError(name)

    def rolling(self, window, who, source, dims, attribute):
        """Active in the window, by the attributes of the month of the device's last active day in it."""
        return self.rows(
            f"WITH seen AS (SELECT DISTINCT {who} AS who, device_id, d FROM {source}, calendar WHERE day <= d AND day > d - {window}), "
            f"last AS (SELECT device_id, d, date_trunc('month', max(day))::DATE AS month FROM active, calendar "
            f"WHERE day <= d AND day > d - {window} GROUP BY ALL) "
            f"SELECT d AS date{dims}, count(DISTINCT who) FROM seen JOIN last USING (device_id, d) "
            f"JOIN {attribute} USING (device_id, month) GROUP BY ALL ORDER BY ALL"
        )

    def running(self, per_day, by):
        """A running total from each group's first day to the last day of data."""
        dims = "".join(f", {d}" for d in by)
        same = "".join(f" AND p.{d} IS NOT DISTINCT FROM g.{d}" for d in by)
        return self.rows(
            f"WITH p AS ({per_day}), g AS (SELECT min(day) AS first{dims} FROM p {'GROUP BY ' + ', '.join(by) if by else ''}) "
            f"SELECT d AS date{''.join(f', g.{x}' for x in by)}, sum(n)::BIGINT FROM g, calendar, p "
            f"WHERE d >= first AND p.day <= d{same} GROUP BY ALL ORDER BY ALL"
        )
