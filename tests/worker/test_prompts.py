"""The prompts of a spec that names sets come to the worker once, and the run has them by hash."""

import hashlib
from pathlib import Path

import pytest

from alignment_core.errors import AlignmentError
from alignment_core.prompt_files import line_of, read_prompts
from alignment_core.spec import CatalogSource, ColorfulnessReward, DDPOSpec, EvaluationSpec, JobSpec, PromptSetSource
from alignment_core.spec.places import Sources, localize
from service.store import deletion, keys, prompt_sets
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import StoredFile
from service.store.records.uploads import PromptSetRecord
from tests.worker.conftest import World
from worker.inputs import write_inputs
from worker.preparing import prompt_places
from worker.sweep import remove_deleted

PROMPTS = ["a red circle", "a blue square"]


def stored(world: World, tmp_path: Path) -> PromptSetRecord:
    path, found = tmp_path / "prompts.jsonl", "ps_" + "1" * 26
    path.write_bytes(b"".join(map(line_of, PROMPTS)))
    report = read_prompts(path, path.name, lambda _: None)
    key = keys.prompt_set_key(DEFAULT_PROJECT_ID, found)
    world.worker().objects.put_file(key, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = StoredFile(path=path.name, size_bytes=path.stat().st_size, sha256=digest, object_key=key)
    return prompt_sets.create(
        world.store,
        prompt_set_id=found,
        project_id=DEFAULT_PROJECT_ID,
        filename=path.name,
        name=None,
        report=report,
        file=file,
    )


def spec_with(prompts: PromptSetSource) -> JobSpec:
    return JobSpec(
        model=CatalogSource(name="shapes"),
        method=DDPOSpec(reward=ColorfulnessReward(), prompts=prompts),
        evaluation=EvaluationSpec(prompts=prompts),
    )


def test_a_run_is_given_a_file_for_each_set_and_its_hash(world: World, tmp_path: Path) -> None:
    found, worker = stored(world, tmp_path), world.worker()
    spec = spec_with(PromptSetSource(id=found.id, sha256=found.sha256, count=2))
    places = prompt_places(worker, DEFAULT_PROJECT_ID, spec)
    workdir = tmp_path / "work"
    write_inputs(spec, Sources(prompt_sets=places), workdir)
    linked = Sources.model_validate_json((workdir / "sources.json").read_bytes())
    here = localize(spec, linked)
    assert isinstance(here.method, DDPOSpec)
    assert here.method.prompts == here.evaluation.prompts == linked.prompt_sets[found.id]
    place = linked.prompt_sets[found.id]
    assert (place.path, place.sha256) == (f"inputs/prompt_sets-{found.id}.jsonl", found.sha256)
    kept: list[str] = []
    read_prompts(workdir / place.path, place.path, kept.append)
    assert kept == PROMPTS


def test_a_set_of_another_project_or_one_that_is_gone_fails_the_job_in_words(world: World, tmp_path: Path) -> None:
    spec = spec_with(PromptSetSource(id=stored(world, tmp_path).id))
    with pytest.raises(AlignmentError, match=r"/method/prompts: ps_1+ does not exist any more"):
        prompt_places(world.worker(), "proj_other", spec)


def test_the_cached_file_of_a_deleted_set_goes_with_the_next_sweep(world: World, tmp_path: Path) -> None:
    found, worker = stored(world, tmp_path), world.worker()
    (place,) = prompt_places(worker, DEFAULT_PROJECT_ID, spec_with(PromptSetSource(id=found.id))).values()
    remove_deleted(worker)
    assert Path(place.path).exists(), "another job may need it"
    deletion.delete_prompt_set(world.store, DEFAULT_PROJECT_ID, found.id)
    remove_deleted(worker)
    assert not Path(place.path).exists()
