-- What a flow's bytes gave away beside its protection (journal.Findings), and how
-- it came about. In the dictionary: few flows differ in it.

ALTER TABLE seen ADD COLUMN quic_version TEXT NOT NULL DEFAULT '';
ALTER TABLE seen ADD COLUMN ech INTEGER NOT NULL DEFAULT 0;
ALTER TABLE seen ADD COLUMN tls_cipher TEXT NOT NULL DEFAULT '';
ALTER TABLE seen ADD COLUMN tls_weak TEXT NOT NULL DEFAULT ''; -- words joined by "; "
ALTER TABLE seen ADD COLUMN certificate TEXT NOT NULL DEFAULT ''; -- expired, not-yet, self-signed, other-name, weak-signature, short-key
ALTER TABLE seen ADD COLUMN credential_user TEXT NOT NULL DEFAULT ''; -- masked
ALTER TABLE seen ADD COLUMN credential_default INTEGER NOT NULL DEFAULT 0;
ALTER TABLE seen ADD COLUMN identifiers TEXT NOT NULL DEFAULT ''; -- kind:count, joined by commas
ALTER TABLE seen ADD COLUMN ambiguous INTEGER NOT NULL DEFAULT 0;
ALTER TABLE seen ADD COLUMN inbound INTEGER NOT NULL DEFAULT 0;
ALTER TABLE seen ADD COLUMN port_mapped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE seen ADD COLUMN by_name_only INTEGER NOT NULL DEFAULT 0;
ALTER TABLE seen ADD COLUMN carried INTEGER NOT NULL DEFAULT 0;

ALTER TABLE flow ADD COLUMN parts INTEGER NOT NULL DEFAULT 1; -- how many times it was told of

-- Flows, as in flows.
ALTER TABLE hour ADD COLUMN weak INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hour ADD COLUMN carried INTEGER NOT NULL DEFAULT 0;

-- What an event is about: with device and kind, it is told once. '' is always told.
ALTER TABLE event ADD COLUMN subject TEXT NOT NULL DEFAULT '';

-- How far, in seconds, the ids are at most ahead of what the clock said: a flow is
-- written after it began, and ids never step back. With it, the end of a time is an id, too.
INSERT INTO meta (key, value) SELECT 'lead', max(0,
  coalesce((SELECT max((id >> 20) - first_ms / 1000) FROM flow), 0),
  coalesce((SELECT max((id >> 20) - at_ms / 1000) FROM lookup), 0));

-- Columns of a view are only ever added, at its end (docs/ledger.md).
DROP VIEW v_flow;
CREATE VIEW v_flow AS
SELECT f.id, d.device,
  datetime(f.first_ms / 1000, 'unixepoch') AS first, datetime(f.last_ms / 1000, 'unixepoch') AS last,
  CASE f.proto WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' WHEN 1 THEN 'icmp' WHEN 58 THEN 'icmp' ELSE 'ip-' || f.proto END AS proto,
  f.src, f.src_port, f.dst, f.dst_port, s.app, s.protection, s.harmless, s.why,
  iif(s.name_source = 'address', '', n.name) AS name, s.name_source, s.tls_version, n.organisation, n.purpose, n.country,
  f.bytes_out, f.bytes_in, f.packets_out, f.packets_in,
  v.action AS verdict, v.reason, v.rule, v.list, f.proxied, s.credentials,
  f.first_ms, f.last_ms, s.quic_version, s.ech, s.tls_cipher, s.tls_weak, s.certificate,
  s.credential_user, s.credential_default, s.identifiers,
  s.ambiguous, s.inbound, s.port_mapped, s.by_name_only, s.carried, f.parts
FROM flow f
CROSS JOIN device d ON d.id = f.device
CROSS JOIN destination n ON n.id = f.destination
CROSS JOIN verdict v ON v.id = f.verdict
CROSS JOIN seen s ON s.id = f.seen;

DROP VIEW v_lookup;
CREATE VIEW v_lookup AS
SELECT l.id, d.device, datetime(l.at_ms / 1000, 'unixepoch') AS at, n.name, l.type, l.rcode,
  v.action AS verdict, v.noted, v.reason, v.rule, v.list, n.organisation, n.purpose, n.country, l.redirected, l.count,
  l.at_ms
FROM lookup l
CROSS JOIN device d ON d.id = l.device
CROSS JOIN destination n ON n.id = l.destination
CROSS JOIN verdict v ON v.id = l.verdict;

DROP VIEW v_device;
CREATE VIEW v_device AS
SELECT d.device, datetime(h.hour * 3600, 'unixepoch') AS hour, n.name AS destination, n.organisation,
  CASE h.protection WHEN 1 THEN 'cannot-tell' WHEN 2 THEN 'encrypted' WHEN 3 THEN 'readable' WHEN 4 THEN 'harmless' ELSE '' END AS protection,
  h.bytes_out, h.bytes_in, h.flows, h.lookups, h.blocked,
  h.hour * 3600000 AS hour_ms, n.purpose, n.country, h.weak, h.carried
FROM hour h
CROSS JOIN device d ON d.id = h.device
CROSS JOIN destination n ON n.id = h.destination;

CREATE VIEW v_event AS
SELECT id, device, datetime(at_ms / 1000, 'unixepoch') AS at, kind, subject, text, at_ms FROM event;
