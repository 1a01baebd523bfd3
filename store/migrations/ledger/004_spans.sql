-- hour by spans of 8 and of 24 hours, flows only and all protections together: who moved
-- the most in a day is asked every few seconds (netcurtain top), and the hours of a day
-- have ten times the rows. Triggers keep its sums those of hour at any time, whatever is
-- added, folded, erased or pruned there.
CREATE TABLE span (
  device      INTEGER NOT NULL,
  hours       INTEGER NOT NULL, -- how many it sums up
  first       INTEGER NOT NULL, -- of them, a multiple of hours
  destination INTEGER NOT NULL,
  bytes_out   INTEGER NOT NULL,
  bytes_in    INTEGER NOT NULL,
  flows       INTEGER NOT NULL,
  readable    INTEGER NOT NULL, -- flows; and not harmless
  blocked     INTEGER NOT NULL, -- flows
  last_ms     INTEGER NOT NULL,
  rows        INTEGER NOT NULL, -- of hour
  PRIMARY KEY (device, hours, first, destination)
) STRICT, WITHOUT ROWID;

INSERT INTO span
SELECT device, 8, hour / 8 * 8, destination, sum(bytes_out), sum(bytes_in), sum(flows), sum(iif(protection = 3, flows, 0)), sum(blocked), max(last_ms), count(*)
FROM hour WHERE protection > 0 GROUP BY device, hour / 8, destination;

INSERT INTO span
SELECT device, 24, hour / 24 * 24, destination, sum(bytes_out), sum(bytes_in), sum(flows), sum(iif(protection = 3, flows, 0)), sum(blocked), max(last_ms), count(*)
FROM hour WHERE protection > 0 GROUP BY device, hour / 24, destination;

CREATE TRIGGER hour_inserted AFTER INSERT ON hour WHEN NEW.protection > 0 BEGIN
  INSERT INTO span VALUES (NEW.device, 8, NEW.hour / 8 * 8, NEW.destination,
    NEW.bytes_out, NEW.bytes_in, NEW.flows, iif(NEW.protection = 3, NEW.flows, 0), NEW.blocked, NEW.last_ms, 1)
  ON CONFLICT DO UPDATE SET bytes_out = bytes_out + excluded.bytes_out, bytes_in = bytes_in + excluded.bytes_in,
    flows = flows + excluded.flows, readable = readable + excluded.readable, blocked = blocked + excluded.blocked,
    last_ms = max(last_ms, excluded.last_ms), rows = rows + 1;
  INSERT INTO span VALUES (NEW.device, 24, NEW.hour / 24 * 24, NEW.destination,
    NEW.bytes_out, NEW.bytes_in, NEW.flows, iif(NEW.protection = 3, NEW.flows, 0), NEW.blocked, NEW.last_ms, 1)
  ON CONFLICT DO UPDATE SET bytes_out = bytes_out + excluded.bytes_out, bytes_in = bytes_in + excluded.bytes_in,
    flows = flows + excluded.flows, readable = readable + excluded.readable, blocked = blocked + excluded.blocked,
    last_ms = max(last_ms, excluded.last_ms), rows = rows + 1;
END;

CREATE TRIGGER hour_updated AFTER UPDATE ON hour WHEN NEW.protection > 0 BEGIN
  UPDATE span SET bytes_out = bytes_out + NEW.bytes_out - OLD.bytes_out, bytes_in = bytes_in + NEW.bytes_in - OLD.bytes_in,
    flows = flows + NEW.flows - OLD.flows, readable = readable + iif(NEW.protection = 3, NEW.flows - OLD.flows, 0),
    blocked = blocked + NEW.blocked - OLD.blocked, last_ms = max(last_ms, NEW.last_ms)
  WHERE device = NEW.device AND hours = 8 AND first = NEW.hour / 8 * 8 AND destination = NEW.destination;
  UPDATE span SET bytes_out = bytes_out + NEW.bytes_out - OLD.bytes_out, bytes_in = bytes_in + NEW.bytes_in - OLD.bytes_in,
    flows = flows + NEW.flows - OLD.flows, readable = readable + iif(NEW.protection = 3, NEW.flows - OLD.flows, 0),
    blocked = blocked + NEW.blocked - OLD.blocked, last_ms = max(last_ms, NEW.last_ms)
  WHERE device = NEW.device AND hours = 24 AND first = NEW.hour / 24 * 24 AND destination = NEW.destination;
END;

CREATE TRIGGER hour_deleted AFTER DELETE ON hour WHEN OLD.protection > 0 BEGIN
  UPDATE span SET bytes_out = bytes_out - OLD.bytes_out, bytes_in = bytes_in - OLD.bytes_in,
    flows = flows - OLD.flows, readable = readable - iif(OLD.protection = 3, OLD.flows, 0),
    blocked = blocked - OLD.blocked, rows = rows - 1
  WHERE device = OLD.device AND hours = 8 AND first = OLD.hour / 8 * 8 AND destination = OLD.destination;
  DELETE FROM span WHERE device = OLD.device AND hours = 8 AND first = OLD.hour / 8 * 8 AND destination = OLD.destination AND rows = 0;
  UPDATE span SET bytes_out = bytes_out - OLD.bytes_out, bytes_in = bytes_in - OLD.bytes_in,
    flows = flows - OLD.flows, readable = readable - iif(OLD.protection = 3, OLD.flows, 0),
    blocked = blocked - OLD.blocked, rows = rows - 1
  WHERE device = OLD.device AND hours = 24 AND first = OLD.hour / 24 * 24 AND destination = OLD.destination;
  DELETE FROM span WHERE device = OLD.device AND hours = 24 AND first = OLD.hour / 24 * 24 AND destination = OLD.destination AND rows = 0;
END;
