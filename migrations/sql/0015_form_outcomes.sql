-- What became of a form: done_at is set after its work; made says where to see it. Older rows were noted before it.
ALTER TABLE console_forms ADD done_at timestamptz, ADD made text;
GRANT UPDATE (done_at, made) ON console_forms TO mediagate_app;
