"""A checkpoint in another form over HTTP: 202 until a worker has made it, then the bytes."""

import io
import zipfile
import zlib

import pytest

from alignment_core.spec.exports import ExportFormat
from service.store import exports, keys
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import JobError
from tests.service.api.world import Api, assert_problem

CARD = b"# `a card`\n"


def new_checkpoint(api: Api, kind: str = "lora") -> str:
    job_id = api.new_job()
    api.save_checkpoint(job_id, api.claim(job_id), 4, kind=kind)  # pyright: ignore[reportArgumentType]
    return api.checkpoint_id(job_id)


def make(api: Api, checkpoint_id: str, format: ExportFormat, files: dict[str, bytes]) -> None:
    """As a worker does."""
    asked = exports.get(api.parts.store, checkpoint_id, format)
    assert asked is not None
    claim = exports.claim(api.parts.store, asked.id, "worker", 60)
    assert claim is not None
    prefix = keys.export_prefix(DEFAULT_PROJECT_ID, claim.job_id, checkpoint_id, claim.id)
    stored = [api.keep(path, prefix + path, content) for path, content in files.items()]
    stored = [file.model_copy(update={"crc32": zlib.crc32(files[file.path])}) for file in stored]
    exports.finish(api.parts.store, claim.id, claim.attempt, stored)


def test_a_folder_is_202_with_its_place_until_it_is_made_then_a_zip_with_its_card(any_api: Api):
    checkpoint_id = new_checkpoint(any_api)
    url = f"/v1/checkpoints/{checkpoint_id}"
    first, second = (any_api.client.get(f"{url}/download?format=merged") for _ in range(2))
    assert (first.status_code, first.json()["status"], first.headers["retry-after"]) == (202, "queued", "2")
    assert first.headers["location"].endswith(f"{url}/exports/merged")
    assert second.json()["id"] == first.json()["id"], "asked twice, made once"
    make(any_api, checkpoint_id, "merged", {"README.md": CARD, "unet/config.json": b"{}"})
    export = any_api.client.get(f"{url}/exports/merged?wait=5").json()
    assert (export["status"], export["size_bytes"], len(export["files"][0]["sha256"])) == ("ready", len(CARD) + 2, 64)
    answer = any_api.client.get(f"{url}/download?format=merged")
    assert f'filename="{checkpoint_id}-merged.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("README.md") == CARD
    part = any_api.client.get(f"{url}/download?format=merged", headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, answer.content[2:6])
    assert any_api.download(f"{url}/exports/merged/files/README.md") == CARD


def test_one_file_comes_as_the_file_and_its_card_beside_it(any_api: Api):
    checkpoint_id = new_checkpoint(any_api)
    url = f"/v1/checkpoints/{checkpoint_id}"
    asked = any_api.client.post(f"{url}/exports", json={"format": "single_file"})
    assert (asked.status_code, asked.headers["location"]) == (202, f"{url}/exports/single_file")
    make(any_api, checkpoint_id, "single_file", {"README.md": CARD, "model.safetensors": b"weights"})
    assert any_api.download(f"{url}/download?format=single_file") == b"weights"
    listed = any_api.client.get(f"{url}/exports").json()["data"]
    assert [one["format"] for one in listed] == ["single_file"]
    again = any_api.client.post(f"{url}/exports", json={"format": "single_file"})
    assert (again.json()["status"], "retry-after" in again.headers) == ("ready", False)


def test_one_that_failed_says_why_until_it_is_asked_for_again(api: Api):
    checkpoint_id = new_checkpoint(api)
    url = f"/v1/checkpoints/{checkpoint_id}"
    api.client.post(f"{url}/exports", json={"format": "peft"})
    (export,) = exports.list_exports(api.parts.store, checkpoint_id)
    exports.claim(api.parts.store, export.id, "worker", 60)
    error = JobError(code="base_model_differs", message="the base model has no layer", category="user")
    exports.fail(api.parts.store, export.id, 1, error)
    problem = assert_problem(api.client.get(f"{url}/download?format=peft"), 409, "export_failed")
    assert "the base model has no layer" in problem["detail"]
    assert api.client.get(f"{url}/exports/peft").json()["error"]["code"] == "base_model_differs"
    assert api.client.post(f"{url}/exports", json={"format": "peft"}).json()["status"] == "queued"


@pytest.mark.parametrize("format", ["peft", "kohya"])
def test_a_full_fine_tune_has_no_lora_to_give(api: Api, format: str):
    url = f"/v1/checkpoints/{new_checkpoint(api, kind='full')}"
    for answer in (
        api.client.get(f"{url}/download?format={format}"),
        api.client.post(f"{url}/exports", json={"format": format}),
    ):
        told = assert_problem(answer, 409, "format_not_available")["detail"]
        assert "ask for diffusers, merged or single_file" in told


def test_what_nobody_asked_for_is_not_there_and_a_look_asks_for_nothing(api: Api):
    checkpoint_id = new_checkpoint(api)
    url = f"/v1/checkpoints/{checkpoint_id}"
    assert_problem(api.client.get(f"{url}/exports/peft"), 404, "export_not_found")
    assert_problem(api.client.get(f"{url}/exports/peft/files/README.md"), 404, "export_not_found")
    assert api.client.head(f"{url}/download?format=peft").status_code == 404
    assert exports.list_exports(api.parts.store, checkpoint_id) == ()
    assert_problem(api.client.get(f"{url}/download?format=gguf"), 422, "invalid_request")
    assert_problem(api.client.post(f"{url}/exports", json={"format": "gguf"}), 422, "invalid_request")
    other = f"/v1/checkpoints/ckpt_{'0' * 26}"
    assert_problem(api.client.post(f"{other}/exports", json={"format": "peft"}), 404, "checkpoint_not_found")
    assert_problem(api.client.get(f"{other}/download?format=merged"), 404, "checkpoint_not_found")


def test_a_checkpoint_that_is_saved_anew_forgets_what_was_made_of_the_old_one(api: Api):
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 4)
    url = f"/v1/checkpoints/{api.checkpoint_id(job_id)}"
    api.client.post(f"{url}/exports", json={"format": "peft"})
    api.save_checkpoint(job_id, attempt, 4)
    assert api.client.get(f"{url}/exports").json()["data"] == []
