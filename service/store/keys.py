"""Where files lie in the object store: `projects/{project}/jobs/{job}/checkpoints/{step}/attempt-{n}/...`.

The attempt is part of the key, so that a worker that was given up for lost cannot overwrite what its successor saved.
"""


def job_prefix(project_id: str, job_id: str) -> str:
    """Prefix of everything that a job left."""
    return f"projects/{project_id}/jobs/{job_id}/"


def dataset_prefix(project_id: str, dataset_id: str) -> str:
    """Prefix of a data set's file."""
    return f"projects/{project_id}/datasets/{dataset_id}/"


def latents_prefix(project_id: str, dataset_id: str) -> str:
    """Prefix of what was encoded of a data set; its folders are namespaces of the cache. It goes with the data set."""
    return f"{dataset_prefix(project_id, dataset_id)}latents/"


def uses_prefix(project_id: str, dataset_id: str) -> str:
    """Prefix of the marks of use: an empty object for each namespace of the cache, put when a run opens it."""
    return f"{dataset_prefix(project_id, dataset_id)}used/"


def blocks_key(project_id: str, dataset_id: str) -> str:
    """The SHA-256 of each block of a data set's file, for who reads it by ranges."""
    return f"{dataset_prefix(project_id, dataset_id)}blocks.sha256"


def browsing_key(project_id: str, dataset_id: str, attempt: int) -> str:
    """The thumbnails and rows of a data set, as one attempt at its check has made them."""
    return f"{dataset_prefix(project_id, dataset_id)}browsing/attempt-{attempt}.bin"


def checkpoint_prefix(project_id: str, job_id: str, step: int, attempt: int) -> str:
    """Prefix of a checkpoint's files, with its slash; `manifest.json` is put last, as the commit mark."""
    return f"projects/{project_id}/jobs/{job_id}/checkpoints/{step}/attempt-{attempt}/"


def exports_prefix(project_id: str, job_id: str, checkpoint_id: str) -> str:
    """Prefix of a checkpoint's exports."""
    return f"projects/{project_id}/jobs/{job_id}/exports/{checkpoint_id}/"


def export_prefix(project_id: str, job_id: str, checkpoint_id: str, export_id: str) -> str:
    """Prefix of what all attempts at an export uploaded; each has a folder `attempt-N` in it."""
    return f"{exports_prefix(project_id, job_id, checkpoint_id)}{export_id}/"


def sample_key(project_id: str, job_id: str, step: int, attempt: int) -> str:
    return f"projects/{project_id}/jobs/{job_id}/samples/{step}/attempt-{attempt}.png"


def tensorboard_key(project_id: str, job_id: str, attempt: int, name: str) -> str:
    return f"projects/{project_id}/jobs/{job_id}/tensorboard/attempt-{attempt}/{name}"


def report_page_key(project_id: str, job_id: str, step: int, attempt: int) -> str:
    return f"projects/{project_id}/jobs/{job_id}/reports/{step}/attempt-{attempt}.html"


def proof_file_key(project_id: str, job_id: str, path: str, attempt: int) -> str:
    """Of a shard of an evaluation, or of its scores."""
    return f"projects/{project_id}/jobs/{job_id}/proof/attempt-{attempt}/{path}"


def candidate_key(project_id: str, job_id: str, path: str, attempt: int) -> str:
    """Of an image that people judge."""
    return f"projects/{project_id}/jobs/{job_id}/candidates/attempt-{attempt}/{path}"


def dataset_key(project_id: str, dataset_id: str, suffix: str) -> str:
    """`suffix` is the file's, such as `.parquet`; the user's own name for it stays in the database."""
    return f"projects/{project_id}/datasets/{dataset_id}/data{suffix}"


def upload_prefix(project_id: str, upload_id: str) -> str:
    """Prefix of the pieces of a file that is on its way."""
    return f"projects/{project_id}/uploads/{upload_id}/"


def upload_piece_key(project_id: str, upload_id: str, start: int, mark: str) -> str:
    """`mark` is the sender's own, so that two who send the same piece never write over one another."""
    return f"{upload_prefix(project_id, upload_id)}{start:016d}-{mark}"


def prompt_set_prefix(project_id: str, prompt_set_id: str) -> str:
    """Prefix of a prompt set's file."""
    return f"projects/{project_id}/prompt_sets/{prompt_set_id}/"


def prompt_set_key(project_id: str, prompt_set_id: str) -> str:
    return f"{prompt_set_prefix(project_id, prompt_set_id)}prompts.jsonl"
