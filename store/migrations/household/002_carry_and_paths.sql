-- How the readable web traffic of a guarded device is carried. Empty text means:
-- not chosen, which is no.
ALTER TABLE choice ADD COLUMN carry TEXT NOT NULL DEFAULT '' CHECK (carry IN ('', 'yes', 'no'));
ALTER TABLE choice ADD COLUMN strip TEXT NOT NULL DEFAULT '' CHECK (strip IN ('', 'yes', 'no'));

-- A rule may name a path; '' is the whole name. It is part of what makes a rule
-- the same rule, so the table is made anew. Ids go on from where they were.
CREATE TABLE rule_with_path (
  id         INTEGER PRIMARY KEY AUTOINCREMENT, -- an id that was taken back is never given again
  action     TEXT NOT NULL CHECK (action IN ('allow', 'block')),
  name       TEXT NOT NULL,
  path       TEXT NOT NULL DEFAULT '', -- '/collect' and all below it, in requests that can be read
  device     TEXT NOT NULL,  -- '' is the whole house
  until_ms   INTEGER NOT NULL, -- 0 is for ever
  created_ms INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  UNIQUE (action, name, path, device)
) STRICT;
INSERT INTO rule_with_path (id, action, name, device, until_ms, created_ms, created_by)
  SELECT id, action, name, device, until_ms, created_ms, created_by FROM rule;
DELETE FROM sqlite_sequence WHERE name = 'rule_with_path';
INSERT INTO sqlite_sequence (name, seq) SELECT 'rule_with_path', seq FROM sqlite_sequence WHERE name = 'rule';
DROP TABLE rule;
ALTER TABLE rule_with_path RENAME TO rule;
