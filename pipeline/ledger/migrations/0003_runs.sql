-- Format 3. Certificates of one run say nearly the same: what they share is kept once, each compressed (zstd) with it as
-- the dictionary. `requests.certificate` holds those of formats before, as they are. While a run carries out many
-- requests, it notes its steps with one of them, the leader.

CREATE TABLE certificate_bases (
    id   INTEGER PRIMARY KEY,
    text BLOB    NOT NULL
) STRICT;

ALTER TABLE requests ADD COLUMN certificate_base INTEGER;
ALTER TABLE requests ADD COLUMN certificate_packed BLOB;
ALTER TABLE requests ADD COLUMN leader TEXT;
