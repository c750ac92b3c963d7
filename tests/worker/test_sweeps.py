"""A sweep to its end by workers, of which one is lost: every trial ends with the numbers of a run that nothing befell."""

import time

from service.store import leases, sweeps
from service.store.projects import DEFAULT_PROJECT_ID
from tests.worker.conftest import World
from tests.worker.test_run import final_total, undisturbed_total
from worker.sweep import sweep
from worker.turns import run_queued_jobs


def test_a_lost_worker_changes_no_result_of_a_sweep(world: World) -> None:
    base = world.queue(steps=6, every=2)
    leases.claim(world.store, base.id, "another", 60)  # out of the way
    queued = {"estimate": None, "card_gib": None, "needs": [], "needs_prompts": [], "metadata": {}}
    trials = [
        ({"seed": seed}, {**queued, "spec": {**base.spec, "seed": seed}, "name": f"trial {seed}"}) for seed in range(3)
    ]
    kept = sweeps.create(world.store, project_id=DEFAULT_PROJECT_ID, trials=trials, search={"type": "list"}, at_once=2)
    worker = world.worker()
    sweep(worker)
    first = sweeps.trials_of(world.store, kept.id)[0].job_id
    assert first is not None
    assert leases.claim(world.store, first, "lost", 0.2) is not None
    time.sleep(0.4)  # the lease ends, and nobody renews it
    sweep(worker)
    run_queued_jobs(worker)
    found = sweeps.trials_of(world.store, kept.id)
    assert [trial.state for trial in found] == ["succeeded"] * 3
    for trial in found:
        job = world.get(base.model_copy(update={"id": trial.job_id}))
        assert final_total(world, job, worker.objects) == undisturbed_total(job)
        assert job.attempt == (2 if trial.job_id == first else 1)
    sweep(worker)
    ended = sweeps.get(world.store, DEFAULT_PROJECT_ID, kept.id)
    assert ended is not None
    assert not ended.is_open
