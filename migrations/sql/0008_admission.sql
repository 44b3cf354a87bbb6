-- A pool's latest ends: how long its tasks take, and how many end in a second, is asked before a task is let in.
CREATE INDEX tasks_ends ON tasks (pool, settled_at) WHERE settled_at IS NOT NULL AND started_at IS NOT NULL;
