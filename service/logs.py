"""Logs: one JSON object a line on standard error, with the request's id. No secrets, and no prompts at INFO."""

import logging
import re
import sys

import structlog

from service.signed_links import PARAMETER

SIGNED = re.compile(rf"([?&]{PARAMETER}=)[^&\s]+")


class WithoutLinks(logging.Filter):
    """Takes signed links out of a server's access log: whoever has one may read what it leads to."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(SIGNED.sub(r"\1...", one) if isinstance(one, str) else one for one in record.args)
        return True


_without_links = WithoutLinks()


def configure_logging(level: int = logging.INFO) -> None:
    """Make structlog write JSON lines; calling it again changes nothing."""
    for name in ("httpx", "httpcore"):  # they write addresses down, and those of webhooks may hold a token
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").addFilter(_without_links)
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
