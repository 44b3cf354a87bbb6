"""What every provider must do, as checks that run against its author's fake upstream: no vendor, no pytest.

``mediagate providers test NAME`` runs them; docs/providers.md says how to write the fake.
"""
