-- What became of a form: done_at is set after its work; made says where to see it. Older rows were noted before it.
-- claim tells one sending from another, so that a claim whose answer was lost is found again by whoever made it.
ALTER TABLE console_forms ADD done_at timestamptz, ADD made text, ADD claim uuid;
GRANT UPDATE (done_at, made, claim) ON console_forms TO mediagate_app;
