-- A ledger as the first release wrote it, with a row in each table.

CREATE TABLE device (
  id     INTEGER PRIMARY KEY,
  device TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE destination (
  id           INTEGER PRIMARY KEY,
  name         TEXT NOT NULL, -- a name, else an address
  organisation TEXT NOT NULL,
  purpose      TEXT NOT NULL,
  country      TEXT NOT NULL,
  breaks       TEXT NOT NULL
) STRICT;
CREATE INDEX destination_name ON destination (name);
INSERT INTO destination VALUES (0, '', '', '', '', '');

CREATE TABLE verdict (
  id     INTEGER PRIMARY KEY,
  action TEXT NOT NULL, -- allow, block, none
  reason TEXT NOT NULL,
  rule   TEXT NOT NULL,
  list   TEXT NOT NULL,
  noted  INTEGER NOT NULL
) STRICT;
CREATE INDEX verdict_rule ON verdict (rule);
INSERT INTO verdict VALUES (0, '', '', '', '', 0);

CREATE TABLE seen (
  id          INTEGER PRIMARY KEY,
  app         TEXT NOT NULL,
  protection  TEXT NOT NULL, -- encrypted, readable, cannot-tell
  harmless    INTEGER NOT NULL,
  why         TEXT NOT NULL,
  name_source TEXT NOT NULL,
  tls_version TEXT NOT NULL,
  credentials TEXT NOT NULL
) STRICT;
CREATE INDEX seen_why ON seen (why);
INSERT INTO seen VALUES (0, '', '', 0, '', '', '', '');

CREATE TABLE flow (
  id          INTEGER PRIMARY KEY,
  device      INTEGER NOT NULL,
  destination INTEGER NOT NULL,
  verdict     INTEGER NOT NULL,
  seen        INTEGER NOT NULL,
  first_ms    INTEGER NOT NULL,
  last_ms     INTEGER NOT NULL,
  proto       INTEGER NOT NULL,
  src         TEXT NOT NULL,
  src_port    INTEGER NOT NULL,
  dst         TEXT NOT NULL,
  dst_port    INTEGER NOT NULL,
  bytes_out   INTEGER NOT NULL,
  bytes_in    INTEGER NOT NULL,
  packets_out INTEGER NOT NULL,
  packets_in  INTEGER NOT NULL,
  proxied     INTEGER NOT NULL,
  readable    INTEGER NOT NULL, -- and not harmless
  blocked     INTEGER NOT NULL
) STRICT;
CREATE INDEX flow_device ON flow (device);
CREATE INDEX flow_readable ON flow (readable) WHERE readable = 1;
CREATE INDEX flow_blocked ON flow (blocked) WHERE blocked = 1;

CREATE TABLE lookup (
  id          INTEGER PRIMARY KEY,
  device      INTEGER NOT NULL,
  destination INTEGER NOT NULL,
  verdict     INTEGER NOT NULL,
  at_ms       INTEGER NOT NULL,
  type        INTEGER NOT NULL,
  rcode       INTEGER NOT NULL,
  redirected  INTEGER NOT NULL,
  blocked     INTEGER NOT NULL,
  count       INTEGER NOT NULL -- the same within one batch is one row
) STRICT;
CREATE INDEX lookup_device ON lookup (device);
CREATE INDEX lookup_blocked ON lookup (blocked) WHERE blocked = 1;
CREATE INDEX lookup_device_blocked ON lookup (device) WHERE blocked = 1;

CREATE TABLE hour (
  device      INTEGER NOT NULL,
  hour        INTEGER NOT NULL,
  destination INTEGER NOT NULL,
  protection  INTEGER NOT NULL,
  bytes_out   INTEGER NOT NULL,
  bytes_in    INTEGER NOT NULL,
  flows       INTEGER NOT NULL,
  lookups     INTEGER NOT NULL,
  blocked     INTEGER NOT NULL,
  seen        INTEGER NOT NULL,
  verdict     INTEGER NOT NULL,
  first_ms    INTEGER NOT NULL,
  last_ms     INTEGER NOT NULL,
  PRIMARY KEY (device, hour, destination, protection)
) STRICT, WITHOUT ROWID;

CREATE TABLE tally (
  device         INTEGER NOT NULL,
  hour           INTEGER NOT NULL,
  bytes_out      INTEGER NOT NULL,
  bytes_in       INTEGER NOT NULL,
  flows          INTEGER NOT NULL,
  lookups        INTEGER NOT NULL,
  blocked        INTEGER NOT NULL,
  readable_flows INTEGER NOT NULL, -- and not harmless
  readable_bytes INTEGER NOT NULL, -- out
  last_ms        INTEGER NOT NULL,
  PRIMARY KEY (device, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE partner (
  device    INTEGER NOT NULL,
  day       INTEGER NOT NULL,
  known     INTEGER NOT NULL, -- 1: name is an organisation; 0: it is a domain or an address, its organisation is not known
  name      TEXT NOT NULL,
  bytes_out INTEGER NOT NULL,
  hour      INTEGER NOT NULL, -- the newest
  PRIMARY KEY (device, day, known, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
  id     INTEGER PRIMARY KEY,
  at_ms  INTEGER NOT NULL,
  device TEXT NOT NULL,
  kind   TEXT NOT NULL,
  text   TEXT NOT NULL
) STRICT;

CREATE TABLE unsaved (
  day          INTEGER NOT NULL,
  device       TEXT NOT NULL,
  organisation TEXT NOT NULL,
  protection   INTEGER NOT NULL,
  bytes_out    INTEGER NOT NULL,
  bytes_in     INTEGER NOT NULL,
  flows        INTEGER NOT NULL,
  lookups      INTEGER NOT NULL,
  blocked      INTEGER NOT NULL,
  PRIMARY KEY (day, device, organisation, protection)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW v_flow AS
SELECT f.id, d.device,
  datetime(f.first_ms / 1000, 'unixepoch') AS first, datetime(f.last_ms / 1000, 'unixepoch') AS last,
  CASE f.proto WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' WHEN 1 THEN 'icmp' WHEN 58 THEN 'icmp' ELSE 'ip-' || f.proto END AS proto,
  f.src, f.src_port, f.dst, f.dst_port, s.app, s.protection, s.harmless, s.why,
  iif(s.name_source = 'address', '', n.name) AS name, s.name_source, s.tls_version, n.organisation, n.purpose, n.country,
  f.bytes_out, f.bytes_in, f.packets_out, f.packets_in,
  v.action AS verdict, v.reason, v.rule, v.list, f.proxied, s.credentials
FROM flow f
CROSS JOIN device d ON d.id = f.device
CROSS JOIN destination n ON n.id = f.destination
CROSS JOIN verdict v ON v.id = f.verdict
CROSS JOIN seen s ON s.id = f.seen;

CREATE VIEW v_lookup AS
SELECT l.id, d.device, datetime(l.at_ms / 1000, 'unixepoch') AS at, n.name, l.type, l.rcode,
  v.action AS verdict, v.noted, v.reason, v.rule, v.list, n.organisation, n.purpose, n.country, l.redirected, l.count
FROM lookup l
CROSS JOIN device d ON d.id = l.device
CROSS JOIN destination n ON n.id = l.destination
CROSS JOIN verdict v ON v.id = l.verdict;

CREATE VIEW v_device AS
SELECT d.device, datetime(h.hour * 3600, 'unixepoch') AS hour, n.name AS destination, n.organisation,
  CASE h.protection WHEN 1 THEN 'cannot-tell' WHEN 2 THEN 'encrypted' WHEN 3 THEN 'readable' WHEN 4 THEN 'harmless' ELSE '' END AS protection,
  h.bytes_out, h.bytes_in, h.flows, h.lookups, h.blocked
FROM hour h
CROSS JOIN device d ON d.id = h.device
CROSS JOIN destination n ON n.id = h.destination;
PRAGMA user_version = 1;

INSERT INTO device VALUES (1, '02:00:5e:10:00:01');
INSERT INTO destination VALUES (1, 'api.example.com', 'Tracker Inc', 'ads', 'US', 'nothing'), (2, 'ads.example.com', 'Tracker Inc', 'ads', 'US', 'nothing');
INSERT INTO verdict VALUES (1, 'none', '', '', '', 0), (2, 'block', 'list', '||ads.example.com^', 'starter', 0);
INSERT INTO seen VALUES (1, 'tls', 'encrypted', 0, 'TLS 1.3 handshake', 'sni', '1.3', '');
INSERT INTO flow VALUES (1882380356812800, 1, 1, 1, 1, 1795177799000, 1795177800000, 6, '192.168.1.20', 40000, '203.0.113.7', 443, 1010, 5020, 3, 4, 0, 0, 0);
INSERT INTO lookup VALUES (1882380356812801, 1, 2, 2, 1795177800000, 1, 3, 0, 1, 2);
INSERT INTO hour VALUES (1, 498660, 1, 2, 1010, 5020, 1, 0, 0, 1, 1, 1795177799000, 1795177800000), (1, 498660, 2, 0, 0, 0, 0, 2, 2, 0, 2, 1795177800000, 1795177800000);
INSERT INTO tally VALUES (1, 498660, 1010, 5020, 1, 2, 2, 0, 0, 1795177800000);
INSERT INTO partner VALUES (1, 20777, 1, 'Tracker Inc', 1010, 498660);
INSERT INTO event VALUES (1882380356812802, 1795177800000, '02:00:5e:10:00:01', 'first-contact', 'talks to Tracker Inc');
INSERT INTO unsaved VALUES (20261120, '02:00:5e:10:00:01', 'Tracker Inc', 2, 1010, 5020, 1, 0, 0);
INSERT INTO meta VALUES ('generation', 1);
