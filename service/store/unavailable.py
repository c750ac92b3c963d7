"""Why a store cannot be used, told apart by what it takes to use it again: patience, or an operator.

Errors of file systems, S3 servers and databases become one of a few reasons here. What a reason means is said in words
that show neither a path nor an address; the error itself is for the log.
"""

import errno
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Literal

Reason = Literal["unreachable", "full", "read_only", "denied", "missing", "broken", "refused"]

WORDS: Mapping[Reason, str] = {
    "unreachable": "does not answer",
    "full": "is full",
    "read_only": "is read-only",
    "denied": "does not let this server in, or not do what it has to",
    "missing": "does not exist under its configured name",
    "broken": "has a fault of its own",
    "refused": "refuses what it is asked",
}

ERRNO_REASONS: Mapping[int, Reason] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read_only",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EIO: "broken",
    errno.EUCLEAN: "broken",
    errno.ENXIO: "broken",
    errno.ENODEV: "broken",
    errno.ESTALE: "unreachable",
    errno.ENOTCONN: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "unreachable",
    errno.EREMOTEIO: "unreachable",
    errno.EAGAIN: "unreachable",
    errno.EBUSY: "unreachable",
    errno.EMFILE: "unreachable",
    errno.ENFILE: "unreachable",
    errno.ENOMEM: "unreachable",
}

S3_REASONS: Mapping[str, Reason] = {
    "NoSuchBucket": "missing",
    "AccessDenied": "denied",
    "AllAccessDisabled": "denied",
    "AccountProblem": "denied",
    "ExpiredToken": "denied",
    "Forbidden": "denied",
    "InvalidAccessKeyId": "denied",
    "InvalidToken": "denied",
    "NotSignedUp": "denied",
    "SignatureDoesNotMatch": "denied",
    "NoCredentialsError": "denied",
    "PartialCredentialsError": "denied",
    "TokenRetrievalError": "denied",
    "UnauthorizedSSOTokenError": "denied",
    "InsufficientStorage": "full",
    "NoSpaceLeft": "full",
    "NoSpaceLeftOnDevice": "full",
    "QuotaExceeded": "full",
    "XMinioAdminBucketQuotaExceeded": "full",
    "XMinioStorageFull": "full",
    "OperationAborted": "unreachable",
    "RequestTimeout": "unreachable",
    "SlowDown": "unreachable",
    "Throttling": "unreachable",
    "ThrottlingException": "unreachable",
    "TooManyRequests": "unreachable",
}
_HTTP_REASONS: Mapping[int, Reason] = {
    401: "denied",
    403: "denied",
    408: "unreachable",
    429: "unreachable",
    507: "full",
}

_SQLITE_REASONS: Mapping[str, Reason] = {
    "SQLITE_AUTH": "denied",
    "SQLITE_CANTOPEN": "missing",
    "SQLITE_CORRUPT": "broken",
    "SQLITE_FULL": "full",
    "SQLITE_IOERR": "broken",
    "SQLITE_NOTADB": "broken",
    "SQLITE_PERM": "denied",
    "SQLITE_READONLY": "read_only",
}
_SQLSTATE_REASONS: Mapping[str, Reason] = {  # whole codes, or the class that their first two characters name
    "25006": "read_only",
    "28": "denied",
    "3D": "missing",
    "42501": "denied",
    "53100": "full",
    "58": "broken",
    "XX": "broken",
}


class ObjectsUnavailable(Exception):  # noqa: N818 - a state of affairs, read as one
    """The object store cannot do what it was asked, for a reason that is not the caller's; nothing was changed."""

    def __init__(self, message: str, reason: Reason = "unreachable") -> None:
        super().__init__(message)
        self.reason: Reason = reason

    @property
    def heals(self) -> bool:
        """Whether it may work again without anybody doing anything."""
        return heals(self.reason)

    @property
    def told(self) -> str:
        """The reason as a clause for everybody's eyes."""
        return f"the object store {WORDS[self.reason]}"


def heals(reason: Reason) -> bool:
    """Whether waiting can be all it takes; every other reason lasts until an operator has acted."""
    return reason == "unreachable"


@contextmanager
def disk_errors(what: str) -> Generator[None]:
    """Errors of a file system that a store lies on, as `ObjectsUnavailable`; those that are mistakes of ours stay."""
    try:
        yield
    except OSError as error:
        reason = ERRNO_REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise ObjectsUnavailable(f"{what}: {error}", reason) from error


def reason_of_s3(code: str, http_status: int) -> Reason:
    """The reason behind an S3 error: its code, else its HTTP status."""
    by_status = _HTTP_REASONS.get(http_status, "unreachable" if http_status >= 500 else "refused")
    return S3_REASONS.get(code, by_status)


def reason_of_database(error: BaseException | None) -> Reason:
    """The reason behind a driver's error, by SQLite's error name or PostgreSQL's SQLSTATE (Appendix A of its manual)."""
    name = getattr(error, "sqlite_errorname", None) or ""
    base = "_".join(name.split("_")[:2])  # SQLITE_IOERR_WRITE is a SQLITE_IOERR
    if base in _SQLITE_REASONS:
        return _SQLITE_REASONS[base]
    sqlstate = getattr(error, "sqlstate", None) or ""
    return _SQLSTATE_REASONS.get(sqlstate) or _SQLSTATE_REASONS.get(sqlstate[:2], "unreachable")
