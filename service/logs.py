"""Logs: one JSON object a line on standard error, with the request's id. No secrets, and no prompts at INFO."""

import logging
import sys

import structlog


def configure_logging(level: int = logging.INFO) -> None:
    """Make structlog write JSON lines; calling it again changes nothing."""
    for name in ("httpx", "httpcore"):  # they write addresses down, and those of webhooks may hold a token
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=repr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whatever standard error is by then
    )
