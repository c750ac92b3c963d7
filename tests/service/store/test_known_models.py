"""Models are asked about by anybody, read by one worker, and remembered."""

from pathlib import Path

from alignment_core.model_files import ModelReport
from alignment_core.spec import HubSource, LocalSource
from service.store import known_models
from service.store.database import Store

HUB = HubSource(repo_id="owner/tiny", revision="c" * 40)


def test_a_model_that_nobody_asked_for_is_unknown(store: Store) -> None:
    assert known_models.recall(store, HUB) is None
    assert known_models.claim_unread(store) is None


def test_what_one_worker_has_read_is_asked_of_no_other(store: Store) -> None:
    known_models.ask(store, HUB)
    known_models.ask(store, HUB)
    assert known_models.claim_unread(store) == HUB
    assert known_models.claim_unread(store) is None, "another worker is at it"
    report = ModelReport(pipeline_class="FluxPipeline", layers={"a.to_q": (4, 8)}, resolution=64)
    known_models.remember(store, HUB, report)
    known = known_models.recall(store, HUB)
    assert known is not None
    assert known.report == report
    assert known_models.claim_unread(store) is None


def test_what_could_not_be_read_says_why_and_is_tried_again_later(store: Store, monkeypatch) -> None:
    known_models.ask(store, HUB)
    known_models.claim_unread(store)
    known_models.not_read(store, HUB, "the Hub is away")
    known = known_models.recall(store, HUB)
    assert known is not None
    assert (known.report, known.error) == (None, "the Hub is away")
    monkeypatch.setattr(known_models, "TRY_AGAIN_SECONDS", -1.0)
    assert known_models.claim_unread(store) == HUB


def test_a_folder_is_read_by_a_worker_that_has_it(store: Store, tmp_path: Path) -> None:
    elsewhere, here = LocalSource(path=str(tmp_path / "elsewhere")), LocalSource(path=str(tmp_path))
    known_models.ask(store, elsewhere)
    known_models.ask(store, here)
    assert known_models.claim_unread(store) == here
    assert known_models.claim_unread(store) is None


def test_only_those_asked_about_last_are_kept(store: Store) -> None:
    sources = [HUB.model_copy(update={"revision": digit * 40}) for digit in "abc"]
    for source in sources:
        known_models.ask(store, source)
    known_models.forget_old(store, most=2)
    assert [known_models.recall(store, source) is not None for source in sources] == [False, True, True]


def test_what_an_older_reader_found_is_read_again(store: Store, monkeypatch) -> None:
    known_models.ask(store, HUB)
    known_models.remember(store, HUB, ModelReport(pipeline_class="FluxPipeline"))
    assert known_models.claim_unread(store) is None
    monkeypatch.setattr(known_models, "READER", "3: sd, flux")
    known = known_models.recall(store, HUB)
    assert known is not None
    assert known.report is None
    assert known_models.claim_unread(store) == HUB
