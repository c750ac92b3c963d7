"""Every method of the client and every command that speaks to a server, each called once on one of everything (`seeds.sow`).

What a call makes, later ones change and delete; what is there from the beginning stays until the end. Calls that the state of the thing
forbids (409), and those that wait in vain for a worker, have reached their endpoint all the same.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attune.client import Client
from attune.errors import AttuneError
from tests.service.api import test_candidates, test_evaluations
from tests.service.api.world import PARQUET, SAFETENSORS, spec_for

HOOK = "https://hooks.example.org/attune"

PARTS = ("admin", "retention", "evaluations", "candidates", "labelings", "webhooks")
NOT_ON_THE_WIRE = {"close"}
Known = dict[str, Any]
Call = Callable[[Client, Known, Path], Any]


def methods_of(client: Client) -> set[str]:
    """`create_job`, `webhooks.list`, ...: everything public."""
    found = {name for name in vars(type(client)) if not name.startswith("_")} - NOT_ON_THE_WIRE
    for part in PARTS:
        found |= {f"{part}.{name}" for name in vars(type(getattr(client, part))) if not name.startswith("_")}
    return found


def called(call: Call, client: Client, known: Known, folder: Path) -> Any:
    """The call, its pages read; what the state forbids is an answer too."""
    try:
        answer = call(client, known, folder)
        return list(answer) if isinstance(answer, Iterator) else answer
    except AttuneError as error:
        if error.status != 409:
            raise
        return error
    except TimeoutError as error:
        return error


def spec(known: Known) -> dict[str, Any]:
    return spec_for(known["dataset_id"])


def file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def kept(known: Known, name: str, thing: Any) -> Any:
    known[name] = thing.id
    return thing


SWEEP = {"search": {"type": "list", "points": [{"seed": 1}]}}

CALLS: Mapping[str, Call] = {
    "is_ready": lambda c, k, f: c.is_ready(),
    "models": lambda c, k, f: c.models(),
    "methods": lambda c, k, f: c.methods(),
    "rewards": lambda c, k, f: c.rewards(),
    "sign_link": lambda c, k, f: c.sign_link(f"/v1/jobs/{k['job_id']}/report.html"),
    # data
    "upload_dataset": lambda c, k, f: kept(k, "new_dataset", c.upload_dataset(file(f, "pairs.parquet", PARQUET))),
    "datasets": lambda c, k, f: c.datasets(),
    "get_dataset": lambda c, k, f: c.get_dataset(k["dataset_id"]),
    "dataset_pairs": lambda c, k, f: c.dataset_pairs(k["dataset_id"]),
    "pair_thumbnail": lambda c, k, f: c.pair_thumbnail(k["dataset_id"], 1, "chosen"),
    "dataset_report": lambda c, k, f: c.dataset_report(k["dataset_id"]),
    "wait_for_dataset": lambda c, k, f: c.wait_for_dataset(k["dataset_id"]),
    "upload_prompts": lambda c, k, f: kept(k, "new_prompts", c.upload_prompts(file(f, "p.txt", b"a star"))),
    "prompt_sets": lambda c, k, f: c.prompt_sets(),
    "get_prompt_set": lambda c, k, f: c.get_prompt_set(k["prompt_set_id"]),
    "prompts": lambda c, k, f: c.prompts(k["prompt_set_id"]),
    "download_prompts": lambda c, k, f: c.download_prompts(k["prompt_set_id"], f / "prompts.jsonl"),
    "delete_prompts": lambda c, k, f: c.delete_prompts(k["new_prompts"]),
    "upload_weights": lambda c, k, f: kept(k, "new_weights", c.upload_weights(file(f, "a.safetensors", SAFETENSORS))),
    "weights": lambda c, k, f: c.weights(),
    "get_weights": lambda c, k, f: c.get_weights(k["weights_id"]),
    "wait_for_weights": lambda c, k, f: c.wait_for_weights(k["weights_id"]),
    "unfinished_uploads": lambda c, k, f: c.unfinished_uploads(),
    "get_upload": lambda c, k, f: c.get_upload(k["upload_id"]),
    # jobs
    "create_job": lambda c, k, f: kept(k, "new_job", c.create_job(spec(k), pins={"result": True})),
    "validate": lambda c, k, f: c.validate(spec(k), pins={"steps": [4]}),
    "jobs": lambda c, k, f: c.jobs(metadata={"team": "design"}),
    "get_job": lambda c, k, f: c.get_job(k["job_id"]),
    "wait_for_job": lambda c, k, f: c.wait_for_job(k["job_id"]),
    "ask": lambda c, k, f: c.ask(k["new_job"], "checkpoint"),
    "actions": lambda c, k, f: c.actions(k["job_id"]),
    "pause": lambda c, k, f: c.pause(k["new_job"]),
    "resume": lambda c, k, f: c.resume(k["new_job"]),
    "cancel": lambda c, k, f: c.cancel(k["new_job"]),
    "delete_job": lambda c, k, f: c.delete_job(k["new_job"]),
    "fork_resume": lambda c, k, f: c.fork_resume(k["checkpoint_id"], 8),
    "fork_warm_start": lambda c, k, f: c.fork_warm_start(k["checkpoint_id"], "base"),
    "ancestry": lambda c, k, f: c.ancestry(k["job_id"]),
    "events": lambda c, k, f: c.events(k["job_id"]),
    "past_events": lambda c, k, f: c.past_events(k["job_id"]),
    "metrics": lambda c, k, f: c.metrics(k["job_id"]),
    "report": lambda c, k, f: c.report(k["job_id"]),
    "download_report_page": lambda c, k, f: c.download_report_page(k["job_id"], f / "report.html"),
    "manifest": lambda c, k, f: c.manifest(k["job_id"]),
    "download_tensorboard": lambda c, k, f: c.download_tensorboard(k["logged_id"], f / "tensorboard"),
    "logs": lambda c, k, f: c.logs(k["job_id"]),
    "samples": lambda c, k, f: c.samples(k["job_id"]),
    "newest_samples": lambda c, k, f: c.newest_samples(k["job_id"]),
    "download_sample": lambda c, k, f: c.download_sample(c.samples(k["job_id"])[0], f / "sample.png"),
    # sweeps
    "create_sweep": lambda c, k, f: kept(k, "new_sweep", c.create_sweep({"spec": spec(k), **SWEEP})),
    "get_sweep": lambda c, k, f: c.get_sweep(k["sweep_id"]),
    "sweeps": lambda c, k, f: c.sweeps(),
    "cancel_sweep": lambda c, k, f: c.cancel_sweep(k["new_sweep"]),
    "delete_sweep": lambda c, k, f: c.delete_sweep(k["new_sweep"]),
    # checkpoints
    "checkpoints": lambda c, k, f: c.checkpoints(k["job_id"]),
    "newest_checkpoints": lambda c, k, f: c.newest_checkpoints(k["job_id"]),
    "get_checkpoint": lambda c, k, f: c.get_checkpoint(k["checkpoint_id"]),
    "result_checkpoint": lambda c, k, f: c.result_checkpoint(k["job_id"]),
    "checkpoint_files": lambda c, k, f: c.checkpoint_files(k["checkpoint_id"]),
    "download_checkpoint": lambda c, k, f: c.download_checkpoint(k["checkpoint_id"], f / "checkpoint"),
    "download_weights": lambda c, k, f: c.download_weights(k["checkpoint_id"], f / "lora", format="safetensors"),
    "has_weights": lambda c, k, f: c.has_weights(k["checkpoint_id"], "safetensors"),
    "export_checkpoint": lambda c, k, f: c.export_checkpoint(k["checkpoint_id"], "kohya"),
    "exports": lambda c, k, f: c.exports(k["checkpoint_id"]),
    "wait_for_export": lambda c, k, f: c.wait_for_export(k["checkpoint_id"], "merged"),
    "download_export": lambda c, k, f: c.download_export(k["checkpoint_id"], f / "merged", format="merged"),
    "push_checkpoint": lambda c, k, f: kept(k, "new_push", c.push_checkpoint(k["checkpoint_id"], "our-team/again")),
    "pushes": lambda c, k, f: c.pushes(k["checkpoint_id"]),
    "wait_for_push": lambda c, k, f: c.wait_for_push(
        next(one for one in c.pushes(k["checkpoint_id"]) if one.id == k["push_id"])
    ),
    "retention.pin": lambda c, k, f: c.retention.pin(k["checkpoint_id"]),
    "retention.unpin": lambda c, k, f: c.retention.unpin(k["checkpoint_id"]),
    "retention.policy": lambda c, k, f: c.retention.policy(),
    "retention.of_job": lambda c, k, f: c.retention.of_job(k["job_id"]),
    "retention.put": lambda c, k, f: [c.retention.put(), c.retention.put(k["job_id"], keep_last=1)],
    "retention.give_up": lambda c, k, f: c.retention.give_up(k["job_id"]),
    # names
    "promote": lambda c, k, f: c.promote(k["checkpoint_id"], "candidate"),
    "promotions": lambda c, k, f: c.promotions(),
    "get_promotion": lambda c, k, f: c.get_promotion(k["promotion_id"]),
    "aliases": lambda c, k, f: c.aliases(),
    "get_alias": lambda c, k, f: c.get_alias(k["alias"]),
    # evaluations
    "evaluations.create": lambda c, k, f: kept(k, "new_evaluation", c.evaluations.create(test_evaluations.SPEC)),
    "evaluations.validate": lambda c, k, f: c.evaluations.validate(test_evaluations.SPEC),
    "evaluations.list": lambda c, k, f: c.evaluations.list(),
    "evaluations.get": lambda c, k, f: c.evaluations.get(k["evaluation_id"]),
    "evaluations.wait": lambda c, k, f: c.evaluations.wait(k["evaluation_id"]),
    "evaluations.pause": lambda c, k, f: c.evaluations.pause(k["new_evaluation"]),
    "evaluations.resume": lambda c, k, f: c.evaluations.resume(k["new_evaluation"]),
    "evaluations.cancel": lambda c, k, f: c.evaluations.cancel(k["new_evaluation"]),
    "evaluations.delete": lambda c, k, f: c.evaluations.delete(k["new_evaluation"]),
    "evaluations.verify": lambda c, k, f: c.evaluations.verify(k["evaluation_id"], num_prompts=1),
    "evaluations.wait_for_verification": lambda c, k, f: c.evaluations.wait_for_verification(
        k["evaluation_id"], c.evaluations.get(k["evaluation_id"]).verifications[-1].id, timeout_seconds=1
    ),
    "evaluations.events": lambda c, k, f: c.evaluations.events(k["evaluation_id"]),
    "evaluations.logs": lambda c, k, f: c.evaluations.logs(k["evaluation_id"]),
    "evaluations.report": lambda c, k, f: c.evaluations.report(k["evaluation_id"]),
    "evaluations.pictures": lambda c, k, f: c.evaluations.pictures(k["evaluation_id"]),
    "evaluations.download_pictures": lambda c, k, f: c.evaluations.download_pictures(k["evaluation_id"], f),
    "evaluations.download_page": lambda c, k, f: c.evaluations.download_page(k["evaluation_id"], f / "page.html"),
    "evaluations.download_scores": lambda c, k, f: c.evaluations.download_scores(k["evaluation_id"], f / "scores"),
    # candidates and labelings
    "candidates.create": lambda c, k, f: kept(k, "new_candidates", c.candidates.create(test_candidates.SPEC)),
    "candidates.validate": lambda c, k, f: c.candidates.validate(test_candidates.SPEC),
    "candidates.playground": lambda c, k, f: c.candidates.playground(),
    "candidates.play": lambda c, k, f: c.candidates.play("a star", [{"name": "base", "model": "shapes"}]),
    "candidates.list": lambda c, k, f: c.candidates.list(),
    "candidates.get": lambda c, k, f: c.candidates.get(k["candidates_id"]),
    "candidates.wait": lambda c, k, f: c.candidates.wait(k["candidates_id"]),
    "candidates.pause": lambda c, k, f: c.candidates.pause(k["new_candidates"]),
    "candidates.resume": lambda c, k, f: c.candidates.resume(k["new_candidates"]),
    "candidates.cancel": lambda c, k, f: c.candidates.cancel(k["new_candidates"]),
    "candidates.delete": lambda c, k, f: c.candidates.delete(k["new_candidates"]),
    "candidates.events": lambda c, k, f: c.candidates.events(k["candidates_id"]),
    "candidates.logs": lambda c, k, f: c.candidates.logs(k["candidates_id"]),
    "candidates.images": lambda c, k, f: c.candidates.images(k["candidates_id"]),
    "candidates.download": lambda c, k, f: c.candidates.download(k["candidates_id"], f / "images"),
    "labelings.create": lambda c, k, f: kept(k, "new_labeling", c.labelings.create(k["candidates_id"])),
    "labelings.list": lambda c, k, f: c.labelings.list(),
    "labelings.get": lambda c, k, f: c.labelings.get(k["labeling_id"]),
    "labelings.next": lambda c, k, f: c.labelings.next(k["new_labeling"]),
    "labelings.vote": lambda c, k, f: c.labelings.vote(k["new_labeling"], 0, "left"),
    "labelings.undo": lambda c, k, f: c.labelings.undo(k["new_labeling"], 0),
    "labelings.results": lambda c, k, f: c.labelings.results(k["labeling_id"]),
    "labelings.make_dataset": lambda c, k, f: c.labelings.make_dataset(k["labeling_id"]),
    "labelings.delete": lambda c, k, f: c.labelings.delete(k["new_labeling"]),
    # webhooks
    "webhooks.create": lambda c, k, f: kept(k, "new_webhook", c.webhooks.create(HOOK)),
    "webhooks.list": lambda c, k, f: c.webhooks.list(),
    "webhooks.get": lambda c, k, f: c.webhooks.get(k["webhook_id"]),
    "webhooks.change": lambda c, k, f: c.webhooks.change(k["webhook_id"], url=HOOK),
    "webhooks.rotate_secret": lambda c, k, f: c.webhooks.rotate_secret(k["webhook_id"]),
    "webhooks.test": lambda c, k, f: c.webhooks.test(k["webhook_id"]),
    "webhooks.deliveries": lambda c, k, f: c.webhooks.deliveries(k["webhook_id"]),
    "webhooks.get_delivery": lambda c, k, f: c.webhooks.get_delivery(k["webhook_id"], k["delivery_id"]),
    "webhooks.redeliver": lambda c, k, f: c.webhooks.redeliver(k["webhook_id"], k["delivery_id"]),
    "webhooks.wait": lambda c, k, f: c.webhooks.wait(k["webhook_id"], k["delivery_id"], timeout_seconds=0),
    "webhooks.delete": lambda c, k, f: c.webhooks.delete(k["new_webhook"]),
    # admins
    "admin.create_key": lambda c, k, f: kept(k, "new_key", c.admin.create_key("another", scope="read")),
    "admin.list_keys": lambda c, k, f: c.admin.list_keys(),
    "admin.get_key": lambda c, k, f: c.admin.get_key(k["key_id"]),
    "admin.rotate_key": lambda c, k, f: c.admin.rotate_key(k["key_id"]),
    "admin.revoke_key": lambda c, k, f: c.admin.revoke_key(k["new_key"]),
    "admin.sessions": lambda c, k, f: c.admin.sessions(),
    "admin.end_session": lambda c, k, f: c.admin.end_session(k["session_id"]),
    "admin.audit": lambda c, k, f: c.admin.audit(),
    "admin.usage": lambda c, k, f: c.admin.usage(),
    "admin.quotas": lambda c, k, f: c.admin.quotas(),
    # what deletes comes last
    "delete_dataset": lambda c, k, f: c.delete_dataset(k["dataset_id"]),
    "delete_weights": lambda c, k, f: c.delete_weights(k["weights_id"]),
    "delete_upload": lambda c, k, f: c.delete_upload(k["upload_id"]),
    "delete_push": lambda c, k, f: c.delete_push(k["checkpoint_id"], k["push_id"]),
    "delete_export": lambda c, k, f: c.delete_export(k["checkpoint_id"], "merged"),
    "delete_sample": lambda c, k, f: c.delete_sample(k["job_id"], k["sample_id"]),
    "delete_report": lambda c, k, f: c.delete_report(k["job_id"]),
    "delete_alias": lambda c, k, f: c.delete_alias(k["alias"]),
    "delete_checkpoint": lambda c, k, f: c.delete_checkpoint(k["checkpoint_id"], even_result=True),
}
