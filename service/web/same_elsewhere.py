"""The job of a form as other tools would start it: a file for the command line, a request, a few lines of Python."""

import json
from collections.abc import Mapping
from pprint import pformat
from shlex import quote
from typing import Any, NamedTuple

import yaml

WIDTH = 100


class Elsewhere(NamedTuple):
    """`yaml` is a file that `attune job submit` reads."""

    yaml: str
    curl: str
    python: str


def elsewhere(spec: Mapping[str, Any], name: str, resume_from: str, base_url: str, keys: bool) -> Elsewhere:
    """The same job thrice, for the server at `base_url`; where it asks for `keys`, with the place of one."""
    body: dict[str, Any] = {"spec": spec}
    if name:
        body["name"] = name
    if resume_from:
        body["resume_from"] = {"checkpoint_id": resume_from}
    key = ' -H "Authorization: Bearer $ATTUNE_API_KEY"' if keys else ""
    sent = json.dumps(body, indent=2, ensure_ascii=False)
    more = [f"name={name!r}"] * bool(name) + [f"resume_from={resume_from!r}"] * bool(resume_from)
    python = ", ".join(["spec", *more])
    return Elsewhere(
        yaml=yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=WIDTH),
        curl=f"curl {base_url}/v1/jobs{key} -H 'Content-Type: application/json' -d {quote(sent)}",
        python=f"from attune import Client\n\nspec = {pformat(spec, width=WIDTH, sort_dicts=False)}\njob = Client().create_job({python})",
    )
