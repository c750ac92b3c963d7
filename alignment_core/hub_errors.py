"""What the Hugging Face Hub refused or did not answer, as an error that says whose fault it is and what to do.

Its libraries tell of a missing network in words about a stack trace, and of a missing repository as of a missing network: the
reason is looked for among the causes of what they raise.
"""

from collections.abc import Iterator
from http import HTTPStatus
from json import JSONDecodeError

from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import AlignmentError

OFFLINE_HINT = (
    "Try again later; for the operator: the worker needs a way to huggingface.co or a mirror (HF_ENDPOINT), or the files in its "
    "Hugging Face cache or as a local folder of the catalog."
)
DENIED_HINT = "Accept the terms on the repository's page, and have the operator give the worker a token (HF_TOKEN) that may read it."


def download_errors() -> tuple[type[Exception], ...]:
    """What a download from the Hub may raise; imported when something is downloaded and no earlier."""
    import httpx2  # what the Hub's client speaks, and lets through
    from huggingface_hub.errors import EntryNotFoundError, XetDownloadError

    return (OSError, ValueError, httpx2.HTTPError, EntryNotFoundError, XetDownloadError)


def hub_error(kind: type[AlignmentError], what: str, not_found: str, error: Exception) -> AlignmentError:
    """The error for what failed while `what` was downloaded; `not_found` is the code where it is not there."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if (without_disk := disk_error_of(error)) is not None:
        return without_disk
    for cause in _causes(error):
        match cause:
            case GatedRepoError():
                return kind("hub_access_denied", f"{what}: its owner lets only some accounts read it", hint=DENIED_HINT)
            case RevisionNotFoundError():
                return kind(not_found, f"{what}: the repository has no such commit")
            case RepositoryNotFoundError() | HFValidationError():
                message = f"{what}: the Hub has no such repository, or does not show it to this machine"
                return kind(
                    not_found,
                    message,
                    hint="Check owner and name; a private one needs a token (HF_TOKEN) on the worker.",
                )
            case RemoteEntryNotFoundError():
                return kind(not_found, f"{what}: the repository lacks a file that is needed")
            case HfHubHTTPError():
                return _of_status(kind, what, cause.response.status_code)
            case JSONDecodeError():
                break  # something between here and the Hub answered in its place
            case ValueError() if cause is error:
                message = f"{what}: the repository has no such weights as safetensors"
                return kind("model_unsupported", message, hint="Check the variant; pickled weights are not read.")
    message = f"{what}: the Hugging Face Hub cannot be reached from the worker, which has no copy of its own"
    return kind("hub_unreachable", message, category="system", retryable=True, hint=OFFLINE_HINT)


def _of_status(kind: type[AlignmentError], what: str, status: int) -> AlignmentError:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return kind("hub_access_denied", f"{what}: the Hub does not let this machine read it", hint=DENIED_HINT)
        case HTTPStatus.TOO_MANY_REQUESTS:
            message = f"{what}: the Hub was asked too often, and answers again later"
            return kind("hub_busy", message, category="capacity", retryable=True)
        case _:
            message = f"{what}: the Hugging Face Hub answered {status}"
            return kind("hub_unreachable", message, category="system", retryable=True, hint=OFFLINE_HINT)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it is said to come from; what was merely handled before is another story."""
    while error is not None:
        yield error
        error = error.__cause__
