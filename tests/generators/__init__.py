"""Clients that others' generators make from the OpenAPI document, with pinned versions of the generators."""
