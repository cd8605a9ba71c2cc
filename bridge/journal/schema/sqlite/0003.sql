-- Who knows of an alarm; and where the knowledge of an asset came from that was registered outside the bridge ('' = through it).

ALTER TABLE alarms ADD COLUMN acked_ns INTEGER NOT NULL DEFAULT 0;     -- 0 = nobody yet
ALTER TABLE alarms ADD COLUMN acked_by TEXT NOT NULL DEFAULT '';
ALTER TABLE alarms ADD COLUMN note TEXT NOT NULL DEFAULT '';

ALTER TABLE items ADD COLUMN source TEXT NOT NULL DEFAULT '';
