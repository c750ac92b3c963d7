"""A checkpoint in a repository of the Hub: huggingface_hub itself against a server that speaks as much of the Hub as it asks for."""

import hashlib
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from service.store import outputs, pushes
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.checkpoints import CheckpointRecord, PushRecord
from tests.servers.hub_writes import LARGE, Hub, writable_hub
from tests.worker.conftest import World
from worker.hub_card import card_for_hub
from worker.parts import WorkerParts
from worker.push import make_push
from worker.run import run_job
from worker.turns import make_exports

TOKEN = "hf_of_the_operator"
REPO = "our-team/shapes"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with writable_hub(TOKEN) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # its servers are not spoken to here
        yield hub


@pytest.fixture
def pusher(world: World) -> WorkerParts:
    settings = {"hub_namespaces": ("our-team",), "hub_token": SecretStr(TOKEN)}
    world.settings = world.settings.model_copy(update=settings)
    return world.worker()


@pytest.fixture
def checkpoint(world: World, pusher: WorkerParts) -> CheckpointRecord:
    job = world.queue(steps=4)
    run_job(pusher, job.id)
    return outputs.list_checkpoints(world.store, DEFAULT_PROJECT_ID, job.id)[-1]


def asked(world: World, checkpoint: CheckpointRecord, branch: str = "main") -> PushRecord:
    push = pushes.ask(world.store, checkpoint, REPO, branch, "diffusers", is_private=True)
    assert push is not None
    return push


def ended(world: World, push: PushRecord) -> PushRecord:
    found = pushes.get(world.store, push.checkpoint_id, push.id)
    assert found is not None
    return found


def test_a_push_makes_the_export_and_commits_it_with_its_card_and_pictures(
    world: World, hub: Hub, pusher: WorkerParts, checkpoint: CheckpointRecord
) -> None:
    push = asked(world, checkpoint)
    make_exports(pusher)
    found = ended(world, push)
    assert (found.state, found.error, found.commit) == ("pushed", None, hub.commits[-1])
    assert found.url == f"{hub.url}/{REPO}/commit/{found.commit}"
    assert hub.private == {REPO: True}
    files = hub.files[REPO, "main"]
    assert files["images/step-4.png"].startswith(b"\x89PNG")
    card = files["README.md"].decode()
    assert f'load_lora_weights("{REPO}")' in card
    assert "![samples](images/step-4.png)\n\n1. `a red circle`" in card
    assert TOKEN not in str(found) + card


def test_a_push_that_is_there_is_answered_and_another_form_is_another_commit(
    world: World, hub: Hub, pusher: WorkerParts, checkpoint: CheckpointRecord
) -> None:
    make_push(pusher, asked(world, checkpoint).id)
    assert asked(world, checkpoint).state == "pushed", "asked twice, pushed once"
    other = pushes.ask(world.store, checkpoint, REPO, "main", "peft", is_private=True)
    assert other is not None
    assert other.state == "queued"


def test_another_branch_starts_at_main_and_is_sent_no_large_file_that_the_repository_has(
    world: World, hub: Hub, pusher: WorkerParts, checkpoint: CheckpointRecord
) -> None:
    make_push(pusher, asked(world, checkpoint).id)
    main = dict(hub.files[REPO, "main"])
    sent = list(hub.uploads)
    assert {hashlib.sha256(main[path]).hexdigest() for path in main if path.endswith(LARGE)} == set(sent) != set()
    other = asked(world, checkpoint, "next")
    make_push(pusher, other.id)
    found = ended(world, other)
    assert (found.state, found.error, found.commit) == ("pushed", None, hub.commits[-1])
    assert hub.files[REPO, "main"] == main, "the push to a branch is no push to main"
    there = hub.files[REPO, "next"]
    assert {path for path in main if there[path] != main[path]} == {"README.md"}
    assert f'load_lora_weights("{REPO}", revision="next")' in there["README.md"].decode()
    assert hub.uploads == sent, "large files that are there already are not sent again"


def test_a_push_to_a_new_branch_alone_sends_its_files_once(
    world: World, hub: Hub, pusher: WorkerParts, checkpoint: CheckpointRecord
) -> None:
    push = asked(world, checkpoint, "next")
    make_push(pusher, push.id)
    assert ended(world, push).state == "pushed"
    assert hub.files[REPO, "main"] == {}
    large = [content for path, content in hub.files[REPO, "next"].items() if path.endswith(LARGE)]
    assert sorted(hub.uploads) == sorted({hashlib.sha256(content).hexdigest() for content in large})


def test_a_hub_that_is_down_can_be_asked_again(
    world: World, hub: Hub, pusher: WorkerParts, checkpoint: CheckpointRecord
) -> None:
    hub.is_down = True
    push = asked(world, checkpoint)
    make_push(pusher, push.id)
    failed = ended(world, push)
    assert failed.error is not None
    assert (failed.state, failed.error.code, failed.error.retryable) == ("failed", "hub_unreachable", True)
    hub.is_down = False
    assert asked(world, checkpoint).state == "queued"
    make_push(pusher, push.id)
    assert (ended(world, push).state, ended(world, push).error) == ("pushed", None)


@pytest.mark.parametrize(("token", "code"), [(SecretStr("hf_of_nobody"), "hub_denied"), (None, "hub_token_missing")])
def test_a_token_that_may_not_is_the_operators_to_mend(
    world: World, hub: Hub, checkpoint: CheckpointRecord, token: SecretStr | None, code: str
) -> None:
    world.settings = world.settings.model_copy(update={"hub_token": token})
    push = asked(world, checkpoint)
    make_push(world.worker("second"), push.id)
    failed = ended(world, push)
    assert failed.error is not None
    assert (failed.error.code, failed.error.category) == (code, "system")


def test_a_lost_workers_push_is_made_by_the_next(
    world: World, hub: Hub, pusher: WorkerParts, checkpoint: CheckpointRecord
) -> None:
    push = asked(world, checkpoint)
    assert pushes.claim(world.store, push.id, "lost", -1.0) is not None
    pushes.sweep(world.store, max_attempts=3)
    assert pushes.next_pushes(world.store) == (push.id,)
    make_push(pusher, push.id)
    assert (ended(world, push).state, ended(world, push).attempt) == ("pushed", 2)


def test_prompts_are_no_markup_in_a_card() -> None:
    card = '# `a`\n\n## Use\n\npipeline.load_lora_weights("FOLDER")\n\n## Licence\n\nits own\n'
    found = card_for_hub(card, REPO, "next", "diffusers", [("images/step-4.png", ["`x`\n# heading"])])
    assert "1. `'x' # heading`" in found
    assert f'load_lora_weights("{REPO}", revision="next")' in found
    assert found.endswith("## Licence\n\nits own\n")
