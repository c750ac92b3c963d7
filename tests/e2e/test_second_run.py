"""The life after the first run, in one story on both sets of parts: a sweep in which a worker is killed, files that were made elsewhere,
a promotion that an evaluation earns, a fork, and a retention run; and a webhook that is told of it all. Every process is a real one, and
everything goes over HTTP."""

import json
import signal
from collections.abc import Callable, Iterator
from os import kill
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file
from standardwebhooks import Webhook, WebhookVerificationError

from attune.client import Client
from attune.errors import AttuneError
from attune.resources.sweeps import Sweep
from service.store.webhook_secrets import new_secret
from tests.alignment_core.families.loras import pipeline_of, random_layers, save_kohya
from tests.e2e.conftest import ASSETS, Deployment, embedded, real_servers
from tests.e2e.test_job import LORA, is_step, until
from tests.servers.process import wait_until
from tests.servers.receiver import Receiver, Request, receiving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS, EVERY = 16, 8
RATES = [3e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4]
KILLED = 1  # the trial whose worker dies
SHAPES = ("circle", "square", "cross", "triangle", "star", "ring")
PROMPTS = [f"a {color} {shape}" for color in ("red", "blue") for shape in SHAPES]  # Holm's correction asks for a dozen
DRAWING = {"num_inference_steps": 3, "guidance_scale": 2.5}
TOLD = ("job.succeeded", "sweep.ended", "evaluation.succeeded", "champion.changed")


@pytest.fixture(params=["embedded", "real servers"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    with embedded() if request.param == "embedded" else real_servers(request) as settings:
        webhooks = {"WEBHOOKS_KEY": "w" * 32, "WEBHOOKS_ALLOW_PRIVATE": "1"}
        deployed = Deployment(tmp_path, {**settings, **webhooks, "RETENTION_EVERY_SECONDS": "1"})
        try:
            deployed.start_api()
            yield deployed
        finally:
            deployed.stop()


def spec_of(dataset: Any, model: Any, rate: float) -> dict[str, Any]:
    return {
        "model": model,
        "method": {"type": "diffusion_dpo", "dataset": dataset, "beta": 1000},
        "adapter": {"type": "lora", "rank": 4},
        "training": {
            "steps": STEPS,
            "batch_size": 8,
            "gradient_accumulation_steps": 1,
            "learning_rate": rate,
            "start_checks": False,
        },
        "checkpoints": {"every": EVERY},
        "evaluation": {
            "prompts": PROMPTS,
            "seeds_per_prompt": 1,
            "batch_size": 24,
            "grid_prompts": 1,
            "bootstrap_resamples": 200,
            "rewards": ["colorfulness"],
            **DRAWING,
        },
        "resources": {"num_cpu_threads": 1},
        "seed": 3,
    }


def test_a_project_lives_on_after_its_first_run(
    deployment: Deployment, run_alone: Callable[[Path], Path], tmp_path: Path
) -> None:
    first = deployment.start_worker("first")
    with deployment.client as client, receiving() as receiver:
        told = verified(client, receiver)
        dataset_id = client.wait_for_dataset(client.upload_dataset(ASSETS / "pairs.parquet").id).id
        lora, unet = foreign_files(client, tmp_path)
        sweep = started(client, dataset_id)
        job_id = sweep.table.trials[KILLED].job_id
        assert job_id is not None
        until(client, job_id, lambda event: is_step(event, EVERY + 1))
        kill(first.pid, signal.SIGKILL)
        deployment.start_worker("second")
        wait_until(lambda: client.get_sweep(sweep.id).table.is_over, "the end of the sweep", 600)

        over = client.get_sweep(sweep.id)
        assert [trial.status for trial in over.table.trials] == ["succeeded"] * len(RATES)
        assert client.get_job(job_id).attempt == 2
        assert over.table.best is not None
        the_killed_trial_ended_as_undisturbed(client, over, run_alone, tmp_path)
        best = over.table.trials[over.table.best].job_id
        assert best is not None
        checkpoint_id = client.result_checkpoint(best)

        evaluation_id = evaluated(client, lora, unet, checkpoint_id)
        made = client.promote(checkpoint_id, evaluation_id=evaluation_id)
        assert (made.forced, made.proof and made.proof.contender) == (False, "trained")
        with pytest.raises(AttuneError) as refused:
            client.evaluations.delete(evaluation_id)
        assert refused.value.code == "evaluation_in_use"

        halfway = next(one.id for one in client.checkpoints(job_id) if one.step == EVERY)
        fork = client.wait_for_job(client.fork_resume(halfway, STEPS + 2).id, 600)
        assert (fork.status, fork.progress.step) == ("succeeded", STEPS + 2)
        what_nobody_needs_goes(client, over, halfway, checkpoint_id)
        the_webhook_was_told(client, told, over, checkpoint_id, {evaluation_id, fork.id, over.id})
        client.delete_sweep(sweep.id)
        assert client.get_job(job_id).status == "succeeded"


def verified(client: Client, receiver: Receiver) -> dict[str, Any]:
    """What a webhook of the project is told from now on, by `webhook-id`: only what the specification's library takes for signed."""
    made, told = client.webhooks.create(receiver.url, events=TOLD), {}

    def look(request: Request) -> None:
        with pytest.raises(WebhookVerificationError):
            Webhook(new_secret()).verify(request.body, request.headers)
        told[request.headers["webhook-id"]] = Webhook(made.secret).verify(request.body, request.headers)

    receiver.looked_at = look
    return told


def the_webhook_was_told(client: Client, told: dict[str, Any], over: Sweep, champion: str, others: set[str]) -> None:
    """Of each trial, the killed worker's too, of the fork, the evaluation and the sweep's end once, and who the champion is."""
    ended = {trial.job_id for trial in over.table.trials} | others

    def about() -> list[Any]:
        return [one["data"]["id"] for one in list(told.values()) if one["type"] != "champion.changed"]

    wait_until(lambda: set(about()) >= ended and len(told) > len(ended), "the last delivery", 60)
    assert sorted(about()) == sorted(ended)
    (changed,) = (one["data"] for one in told.values() if one["type"] == "champion.changed")
    assert (changed["checkpoint_id"], changed["previous_checkpoint_id"], changed["forced"]) == (champion, None, False)
    (sweep,) = (one["data"] for one in told.values() if one["type"] == "sweep.ended")
    assert (sweep["num_trials"], sweep["num_succeeded"]) == (len(RATES), len(RATES))
    assert (sweep["best"]["number"], sweep["best"]["checkpoint_id"]) == (over.table.best, champion)
    (hook,) = client.webhooks.list()
    sent = list(client.webhooks.deliveries(hook.id))
    assert {one.id: one.state for one in sent} == dict.fromkeys(told, "delivered")


def started(client: Client, dataset_id: str) -> Sweep:
    body = {
        "spec": spec_of({"type": "stored", "id": dataset_id}, "shapes", RATES[0]),
        "search": {"type": "grid", "axes": {"training.learning_rate": RATES}},
        "at_once": 2,
    }
    return client.create_sweep(body)


def foreign_files(client: Client, folder: Path) -> tuple[str, str]:
    """A LoRA in kohya's names and a whole U-Net, both made outside of Attune; their ids."""
    layers = random_layers(pipeline_of(ASSETS / "model").unet, ("to_q", "to_v"))
    style = save_kohya({"unet": layers}, folder / "style.safetensors")
    own = load_tensors(ASSETS / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    torch.manual_seed(2)
    save_file({name: one + 0.01 * torch.randn_like(one) for name, one in own.items()}, folder / "unet.safetensors")
    sent = [client.upload_weights(path) for path in (style, folder / "unet.safetensors")]
    lora, unet = (client.wait_for_weights(one.id).id for one in sent)
    return lora, unet


def the_killed_trial_ended_as_undisturbed(
    client: Client, over: Sweep, run_alone: Callable[[Path], Path], folder: Path
) -> None:
    """Its weights bit for bit, and so what the table says of it."""
    dataset, model = ({"type": "local", "path": str(ASSETS / name)} for name in ("pairs.parquet", "model"))
    spec = folder / "alone.json"
    spec.write_text(json.dumps(spec_of(dataset, model, RATES[KILLED])))
    alone = run_alone(spec)
    trial = over.table.trials[KILLED]
    assert trial.job_id is not None
    saved = client.download_checkpoint(client.result_checkpoint(trial.job_id), folder / "killed")
    undisturbed = load_file(alone / "checkpoints" / f"step-{STEPS:08d}" / LORA)
    weights = load_file(saved / LORA)
    assert weights.keys() == undisturbed.keys()
    assert all(np.array_equal(weights[name], undisturbed[name]) for name in weights), "bit for bit"
    report = json.loads((alone / "evaluation" / f"step-{STEPS:08d}" / "report.json").read_text())
    (line,) = report["rewards"]
    (score,) = trial.scores
    assert (score.gain, score.low, score.high) == (
        line["gain"],
        *(line["gain_interval"][end] for end in ("low", "high")),
    )
    assert over.table.source is not None
    assert over.table.source.scores[0].mean == line["base_mean"]


def evaluated(client: Client, lora: str, unet: str, checkpoint_id: str) -> str:
    """The id of an evaluation of both foreign files and of the sweep's best against the base."""
    spec: dict[str, Any] = {
        "contenders": [
            {"name": "base", "model": "shapes"},
            {"name": "styled", "model": "shapes", "lora": lora, "strength": 0.8},
            {"name": "tuned", "model": "shapes", "denoiser": unet},
            {"name": "trained", "model": checkpoint_id},
        ],
        "prompts": PROMPTS,
        "seeds_per_prompt": 1,
        "rewards": ["colorfulness"],
        "sampling": DRAWING,
        "bootstrap_resamples": 200,
        "resources": {"num_cpu_threads": 1},
    }
    found = client.evaluations.wait(client.evaluations.create(spec).id, 600)
    assert found.status == "succeeded", found.error
    report = client.evaluations.report(found.id)
    assert [one.policy.label for one in report.comparisons] == ["styled", "tuned", "trained"]
    assert all(one.rewards[0].holm_p_value is not None for one in report.comparisons)
    return found.id


def what_nobody_needs_goes(client: Client, over: Sweep, stem: str, champion: str) -> None:
    """By the project's policy: the champion and what the fork stands on stay."""
    client.retention.put(keep_last=0, keep_best=False, ttl_days=1e-6)
    trials = [one.job_id for one in over.table.trials if one.job_id is not None]

    def left() -> set[str]:
        return {one.id for job_id in trials for one in client.checkpoints(job_id)}

    wait_until(lambda: left() == {stem, champion}, "the retention run", 120)
