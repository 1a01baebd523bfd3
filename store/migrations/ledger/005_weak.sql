-- Flows whose encryption is outdated or badly set up, as in hour.
ALTER TABLE tally ADD COLUMN weak INTEGER NOT NULL DEFAULT 0;
UPDATE tally SET weak = (SELECT sum(weak) FROM hour h WHERE h.device = tally.device AND h.hour = tally.hour)
WHERE (device, hour) IN (SELECT device, hour FROM hour WHERE weak > 0);
