-- What an event is about (migrations/ledger/002).
ALTER TABLE event ADD COLUMN subject TEXT NOT NULL DEFAULT '';

CREATE VIEW v_event AS
SELECT id, device, datetime(at_ms / 1000, 'unixepoch') AS at, kind, subject, text, at_ms FROM event;
