-- What people decided. Columns called _ms are Unix milliseconds.

-- Empty text means: not chosen.
CREATE TABLE choice (
  device     TEXT PRIMARY KEY,
  name       TEXT NOT NULL DEFAULT '',
  kind       TEXT NOT NULL DEFAULT '',
  mode       TEXT NOT NULL DEFAULT '',
  log        TEXT NOT NULL DEFAULT '',
  changed_ms INTEGER NOT NULL,
  changed_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE rule (
  id         INTEGER PRIMARY KEY AUTOINCREMENT, -- an id that was taken back is never given again
  action     TEXT NOT NULL CHECK (action IN ('allow', 'block')),
  name       TEXT NOT NULL,
  device     TEXT NOT NULL,  -- '' is the whole house
  until_ms   INTEGER NOT NULL, -- 0 is for ever
  created_ms INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  UNIQUE (action, name, device)
) STRICT;

CREATE TABLE audit (
  id     INTEGER PRIMARY KEY,
  at_ms  INTEGER NOT NULL,
  who    TEXT NOT NULL,
  device TEXT NOT NULL,
  what   TEXT NOT NULL
) STRICT;

CREATE TABLE setting (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The devices that the house has met, so that a restart makes nobody new. Not a
-- choice: no line in the audit log.
CREATE TABLE known (
  device   TEXT PRIMARY KEY,
  macs     TEXT NOT NULL, -- comma-separated
  hostname TEXT NOT NULL,
  first_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
