"""Real servers for the tests: PostgreSQL, an S3 server (OpenStack Swift) and Redis, from wheels, without root."""
