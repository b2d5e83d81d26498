-- Format 2. Rows of metrics as they were last issued to somebody who is held to the smallest group: sums over at least
-- so many devices, sealed (AES-256-GCM), found by a keyed hash of the question. Months count from 1970.

CREATE TABLE issued (
    series BLOB    NOT NULL,
    month  INTEGER NOT NULL,
    sealed BLOB    NOT NULL,
    PRIMARY KEY (series, month)
) STRICT, WITHOUT ROWID;

-- How many devices were active in a month whenever something was issued about it.
CREATE TABLE issued_marks (
    month   INTEGER NOT NULL,
    devices INTEGER NOT NULL,
    PRIMARY KEY (month, devices)
) STRICT, WITHOUT ROWID;

-- `turn` counts what was issued, so that of two who decide at once the second decides again; `bytes` is the size of `issued`.
CREATE TABLE issues (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    turn  INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO issues (one) VALUES (1);
