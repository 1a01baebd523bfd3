-- The readable and the blocked flows of one device, which may have none where
-- others have a hundred thousand.
CREATE INDEX flow_device_readable ON flow (device) WHERE readable = 1;
CREATE INDEX flow_device_blocked ON flow (device) WHERE blocked = 1;
