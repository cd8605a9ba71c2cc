-- Who knows of an alarm; and where the knowledge of an asset came from that was registered outside the bridge ('' = through it).

ALTER TABLE alarms ADD COLUMN acked_ns BIGINT NOT NULL DEFAULT 0;     -- 0 = nobody yet
ALTER TABLE alarms ADD COLUMN acked_by TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE alarms ADD COLUMN note TEXT COLLATE "C" NOT NULL DEFAULT '';

ALTER TABLE items ADD COLUMN source TEXT COLLATE "C" NOT NULL DEFAULT '';
