-- Lists that the household added, and its word on lists of the settings file.
CREATE TABLE list (
  name       TEXT PRIMARY KEY,
  source     TEXT NOT NULL CHECK (source IN ('url', 'file', 'catalogue', 'settings')), -- settings: the settings file's; only enabled and list_device are the household's
  address    TEXT NOT NULL, -- URL, file name, name in the catalogue; '' of settings
  allow      INTEGER NOT NULL,
  insecure   INTEGER NOT NULL, -- may come over http
  rewrite    INTEGER NOT NULL, -- its rules may answer with other addresses
  enabled    INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  created_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Whom a list is for; no row: the whole house.
CREATE TABLE list_device (
  list   TEXT NOT NULL,
  device TEXT NOT NULL,
  PRIMARY KEY (list, device)
) STRICT, WITHOUT ROWID;

-- How lists fare: sums, nothing of who asked for what. Not a choice: no line in the audit log.
CREATE TABLE list_state (
  name       TEXT PRIMARY KEY,
  success_ms INTEGER NOT NULL, -- 0 is never
  failure_ms INTEGER NOT NULL, -- since when it fails; 0 when it does not
  error      TEXT NOT NULL,
  hits       INTEGER NOT NULL,
  hit_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What this box itself asked outside, by what for and whom. Kept for ninety days after the last time.
CREATE TABLE egress (
  what     TEXT NOT NULL,
  host     TEXT NOT NULL,
  requests INTEGER NOT NULL,
  bytes    INTEGER NOT NULL, -- that came back
  first_ms INTEGER NOT NULL,
  last_ms  INTEGER NOT NULL,
  PRIMARY KEY (what, host)
) STRICT, WITHOUT ROWID;
