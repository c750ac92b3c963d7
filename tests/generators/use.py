"""What a Python user writes against the package that openapi-python-client makes. Arguments: address, id of a data set."""

import json
import sys

from attune_client import Client  # pyright: ignore[reportMissingImports]  it is made by the test
from attune_client.api.jobs import create_job, get_job  # pyright: ignore[reportMissingImports]
from attune_client.models import Job, JobRequest  # pyright: ignore[reportMissingImports]

address, dataset = sys.argv[1:]
client = Client(base_url=address)
spec = {
    "model": {"type": "catalog", "name": "shapes"},
    "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset}},
    "reference": {"type": "ema", "every": 10},
    "evaluation": {"prompts": ["a red circle"], "rewards": [{"type": "colorfulness"}]},
}
made = create_job.sync(client=client, body=JobRequest.from_dict({"name": "typed", "spec": spec}))
assert isinstance(made, Job), made
found = get_job.sync(made.id, client=client)
assert isinstance(found, Job), found
print(json.dumps({"id": found.id, "status": found.status, "reference": found.spec.to_dict()["reference"]["type"]}))
