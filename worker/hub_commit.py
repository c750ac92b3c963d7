"""One commit to the Hub, in a process of its own: `python -P -m worker.hub_commit`, told on stdin, which answers with a line on stdout.

So a connection that hangs can be ended, and the token is in no environment and no argument. `HF_ENDPOINT` says which Hub.
"""

import json
import sys
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

MAIN = "main"
DENIED, TRY_AGAIN = (401, 403), (408, 429)


def commit(asked: dict[str, Any]) -> dict[str, Any]:
    """Make repository and branch where they are not there, and commit the folder; nothing is sent that is there already."""
    api, repo_id, branch = HfApi(token=asked["token"]), asked["repo_id"], asked["branch"]
    api.create_repo(repo_id, private=asked["private"], exist_ok=True)
    if branch != MAIN:
        api.create_branch(repo_id, branch=branch, exist_ok=True)
    done = api.upload_folder(
        repo_id=repo_id,
        folder_path=Path(asked["folder"]),
        revision=branch,
        commit_message=asked["message"],
        commit_description=asked["description"],
    )
    return {"commit": done.oid, "url": done.commit_url}


def failure_of(error: Exception) -> dict[str, Any]:
    """Whose fault it is. The Hub's own words are told; they name a repository and no token."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if status in DENIED:
        message = f"the Hub does not let this server in ({status})"
        hint = "Ask the operator: the server's token has to be one that may write there."
        return {"code": "hub_denied", "message": message, "category": "system", "hint": hint}
    if status is None or status >= 500 or status in TRY_AGAIN:
        message = f"the Hub does not answer ({type(error).__name__ if status is None else status})"
        again = {"retryable": True, "hint": "Ask for it again."}
        return {"code": "hub_unreachable", "message": message, "category": "capacity", **again}
    said = (getattr(error, "server_message", None) or "no reason").split("\n")[0][:200]
    return {"code": "hub_refused", "message": f"the Hub refused it ({status}): {said}", "category": "user"}


def main() -> int:
    try:
        answer: dict[str, Any] = commit(json.load(sys.stdin))
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        answer = {"error": failure_of(error)}
    print(json.dumps(answer), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
