-- A memory as the first release wrote it.

CREATE TABLE device (
  id     INTEGER PRIMARY KEY,
  device TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE organisation (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE day (
  day          INTEGER NOT NULL,
  device       INTEGER NOT NULL,
  organisation INTEGER NOT NULL,
  protection   INTEGER NOT NULL,
  bytes_out    INTEGER NOT NULL,
  bytes_in     INTEGER NOT NULL,
  flows        INTEGER NOT NULL,
  lookups      INTEGER NOT NULL,
  blocked      INTEGER NOT NULL,
  PRIMARY KEY (day, device, organisation, protection)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
  id     INTEGER PRIMARY KEY, -- the ledger's
  at_ms  INTEGER NOT NULL,
  device TEXT NOT NULL,
  kind   TEXT NOT NULL,
  text   TEXT NOT NULL
) STRICT;

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW v_day AS
SELECT t.day, d.device, o.name AS organisation,
  CASE t.protection WHEN 1 THEN 'cannot-tell' WHEN 2 THEN 'encrypted' WHEN 3 THEN 'readable' WHEN 4 THEN 'harmless' ELSE '' END AS protection,
  t.bytes_out, t.bytes_in, t.flows, t.lookups, t.blocked
FROM day t
CROSS JOIN device d ON d.id = t.device
CROSS JOIN organisation o ON o.id = t.organisation;
PRAGMA user_version = 1;

INSERT INTO device VALUES (1, '02:00:5e:10:00:01');
INSERT INTO organisation VALUES (1, 'Tracker Inc');
INSERT INTO day VALUES (20261119, 1, 1, 2, 77, 88, 1, 0, 0);
INSERT INTO event VALUES (1882289759846400, 1795091400000, '02:00:5e:10:00:01', 'new-device', 'from an earlier day');
INSERT INTO meta VALUES ('taken', 0);
