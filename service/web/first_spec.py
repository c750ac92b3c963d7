"""The spec that a form begins with: one that runs as it stands, an earlier job's, or one that goes on from a checkpoint."""

from collections.abc import Mapping
from typing import Any

from service.web.asking import Api, part
from service.web.presets import laid_over
from service.web.recipes import recipe_of

OFFERED = 100
FIRST_STEPS = 200
TRAINED_PROMPTS = ["a big red circle on the left", "a small blue square on the right"]
JUDGED_PROMPTS = ["a big blue circle on the right", "a small red square on the left"]


async def ready_datasets(api: Api) -> list[dict[str, Any]]:
    """The newest data sets that can be trained on."""
    return [one for one in (await api.get("/v1/datasets", limit=OFFERED))["data"] if one["status"] == "ready"]


async def spec_of_job(api: Api, job_id: str) -> dict[str, Any]:
    return (await api.get(f"/v1/jobs/{part(job_id)}"))["spec"]


async def spec_on_checkpoint(api: Api, checkpoint_id: str) -> dict[str, Any]:
    """A new run on a checkpoint's weights: the spec of its job, which starts from them."""
    checkpoint = await api.get(f"/v1/checkpoints/{part(checkpoint_id)}")
    spec, source = await spec_of_job(api, checkpoint["job_id"]), {"type": "checkpoint", "id": checkpoint["id"]}
    if checkpoint["kind"] == "lora":
        return {**spec, "start": {"lora": source, "mode": "train", "initial": "lora"}}
    return {**spec, "model": source, "start": None}


async def first_spec(api: Api, method: str, dataset: str, model: str = "") -> dict[str, Any]:
    """What runs as it is: the model of this name, such as `@champion`, or the first one, the first judge, the data set or a few prompts, and
    what is recommended for the model."""
    offered, rewards = (await api.get("/v1/models"))["data"], (await api.get("/v1/rewards"))["data"]
    models = [one for one in offered if one["is_trained"]]
    judge = _judge(rewards)
    evaluation: dict[str, Any] = {"rewards": [{"type": judge}]} if judge else {}
    chosen = await required_of(api, method, dataset, judge)
    if "prompts" in chosen:  # what is trained on is not what is judged
        evaluation["prompts"] = JUDGED_PROMPTS
    spec = {
        "model": next(
            (one["source"] for one in models if model in ("", one["id"])), {"type": "catalog", "name": model}
        ),
        "method": chosen,
        "training": {"steps": FIRST_STEPS},
        "evaluation": evaluation,
    }
    return laid_over(spec, recipe_of(models, spec, method))


async def required_of(api: Api, method: str, dataset: str, judge: str | None = None) -> dict[str, Any]:
    """The method with something in each field that it cannot do without."""
    wanted, found = await _wanted(api, method), dict[str, Any]({"type": method})
    judge = judge or _judge((await api.get("/v1/rewards"))["data"])
    if "dataset" in wanted:
        ready = [] if dataset else await ready_datasets(api)
        found["dataset"] = {"type": "stored", "id": dataset or (ready[0]["id"] if ready else "")}
    if "prompts" in wanted:
        found["prompts"] = TRAINED_PROMPTS
    if "reward" in wanted and judge:
        found["reward"] = {"type": judge}
    if "rewards" in wanted and judge:
        found["rewards"] = [{"type": judge}]
    return found


def _judge(rewards: list[dict[str, Any]]) -> str | None:
    """The first that needs no weights, which every server has."""
    return next((one["id"] for one in rewards if not one["json_schema"].get("required")), None)


async def _wanted(api: Api, method: str) -> Mapping[str, Any]:
    methods = {one["id"]: one for one in (await api.get("/v1/methods"))["data"]}
    return methods.get(method, {}).get("json_schema", {}).get("properties", {})
