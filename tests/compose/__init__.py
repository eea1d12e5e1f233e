"""docker-compose as a user runs it: `make compose-test`. Needs an engine: no part of the test suite."""
