-- Automatic answers that led to a message, and whether it came beyond the automatic turns of its sessions: it
-- wakes no session then (docs/spec/daemon.md, Trust and loops).
ALTER TABLE inbox ADD COLUMN hops INTEGER NOT NULL DEFAULT 0;

ALTER TABLE inbox ADD COLUMN in_loop INTEGER NOT NULL DEFAULT 0;
