"""A checkpoint is written while training goes on, and is the one that everybody would have waited for."""

import threading
from contextlib import closing
from pathlib import Path

import pytest

from alignment_core import align, checkpoints
from alignment_core.checkpoints import Manifest, complete, folder_of, verify
from alignment_core.events import CheckpointSaved, Event, PhaseChanged, StepCompleted
from alignment_core.spec import JobSpec
from alignment_core.training import saving
from tests.alignment_core.test_alignment import of_type, same_weights
from tests.alignment_core.tiny import tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

commit = checkpoints.commit


@pytest.fixture
def spec(tiny_model: Path, tiny_pairs: Path) -> JobSpec:
    """A full fine-tune of six steps that saves every two."""
    return tiny_spec(tiny_model, tiny_pairs, adapter={"type": "full"}, evaluation={})


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Everything is written beside the training, and no checkpoint is whole before this is set."""
    opened = threading.Event()

    def slowly(temporary: Path, manifest: Manifest) -> Path:
        assert opened.wait(60)
        return commit(temporary, manifest)

    monkeypatch.setattr(checkpoints, "commit", slowly)
    monkeypatch.setattr(saving, "BACKGROUND_BYTES", 0)
    return opened


def test_steps_are_taken_while_a_checkpoint_is_written_and_it_holds_the_step_that_it_names(
    spec: JobSpec, gate: threading.Event, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    for event in align(spec, tmp_path / "beside", cache_dir=cache_dir):
        events.append(event)
        if isinstance(event, StepCompleted) and event.step == 3:
            assert not complete(tmp_path / "beside" / "checkpoints")  # that of step 2 is under way
            gate.set()
    assert [event.step for event in of_type(events, CheckpointSaved)] == [2, 4, 6]
    told = [(event.type, event.step) for event in events if isinstance(event, StepCompleted | CheckpointSaved)]
    assert told.index(("step_completed", 3)) < told.index(("checkpoint_saved", 2))
    third = next(index for index, event in enumerate(events) if isinstance(event, StepCompleted) and event.step == 3)
    before = [event.phase for event in events[:third] if isinstance(event, PhaseChanged)]
    assert before[-2:] == ["saving", "training"], "the copy was waited for, and the writing is not"
    monkeypatch.setattr(saving, "BACKGROUND_BYTES", 2**40)
    list(align(spec, tmp_path / "waited", cache_dir=cache_dir))
    for step in (2, 4, 6):
        beside, waited = (folder_of(tmp_path / name / "checkpoints", step) for name in ("beside", "waited"))
        verify(beside)
        assert same_weights(beside, waited)


def test_who_leaves_waits_for_what_is_being_written(
    spec: JobSpec, gate: threading.Event, cache_dir: Path, tmp_path: Path
) -> None:
    with closing(align(spec, tmp_path, cache_dir=cache_dir)) as events:
        for event in events:
            if isinstance(event, StepCompleted) and event.step == 3:
                threading.Timer(0.1, gate.set).start()
                break
    assert [verify(folder).step for folder in complete(tmp_path / "checkpoints")] == [2, 3]


def test_a_write_that_fails_ends_the_run_and_leaves_nothing_that_looks_whole(
    spec: JobSpec, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(temporary: Path, manifest: Manifest) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "commit", full_disk)
    monkeypatch.setattr(saving, "BACKGROUND_BYTES", 0)
    with pytest.raises(OSError, match="No space left"):
        list(align(spec, tmp_path, cache_dir=cache_dir))
    assert not complete(tmp_path / "checkpoints")


def test_frozen_parts_are_on_the_disk_once_and_survive_the_first_checkpoint(
    spec: JobSpec, cache_dir: Path, tmp_path: Path
) -> None:
    list(align(spec, tmp_path, cache_dir=cache_dir))
    first, second, last = complete(tmp_path / "checkpoints")
    vae = Path("pipeline/vae/diffusion_pytorch_model.safetensors")
    assert (first / vae).samefile(last / vae)
    unet = Path("pipeline/unet/diffusion_pytorch_model.safetensors")
    assert not (first / unet).samefile(last / unet)
    base = Path(spec.model.path) / "vae/diffusion_pytorch_model.safetensors"  # pyright: ignore[reportAttributeAccessIssue]
    assert not (last / vae).samefile(base)  # the operator's file is not shared: neither can alter the other
    checkpoints.prune(tmp_path / "checkpoints", keep_last=1)
    assert not first.exists()
    assert not second.exists()
    verify(last)
