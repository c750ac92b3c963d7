"""Records: what the store's functions hand out. Frozen, detached from the database, safe to keep."""
