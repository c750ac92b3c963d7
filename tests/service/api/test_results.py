"""Metrics, samples, the report, the manifest and logs over HTTP."""

import csv
import io
import zipfile
import zlib
from typing import Any

import pytest

from alignment_core.events import (
    EvaluationCompleted,
    PrecisionMeasured,
    SampleGrid,
    Throughput,
    ThroughputMeasured,
    TrackingFileWritten,
    VaePrecisionChosen,
    ValidationCompleted,
)
from alignment_core.spec import sha256_of_json
from service.api.schemas.runs import REPORT_EXAMPLE, SAMPLE_EXAMPLE
from service.store import events, keys, leases
from service.store.projects import DEFAULT_PROJECT_ID
from tests.service.api.world import CHECKPOINT_FILES, PAGE, PNG, Api, assert_problem, step_completed
from tests.service.store.plans import sent_by

FORMAT_1 = {"step", "num_prompts", "seeds_per_prompt", "num_inference_steps", "guidance_scale", "primary_reward"}
FORMAT_1 |= {"verdict", "prompt_following", "spec_sha256", "base_model_sha256", "versions", "elapsed_seconds", "images"}
FORMAT_1_LINE = {"name", "base_mean", "policy_mean", "gain", "gain_interval", "win_rate", "num_ties"}


@pytest.fixture
def trained(api: Api) -> tuple[Api, str]:
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.say(job_id, attempt, *(step_completed(step, 100) for step in range(1, 101)))
    api.say(job_id, attempt, ValidationCompleted(step=50, metrics={"loss": 0.5}))
    return api, job_id


def test_metrics_are_rows_by_step_with_the_validation_split_beside(trained: tuple[Api, str]):
    api, job_id = trained
    found = api.client.get(f"/v1/jobs/{job_id}/metrics").json()
    assert found["keys"] == ["loss", "margin", "validation/loss"]
    assert [point["step"] for point in found["data"]] == list(range(1, 101))
    assert found["data"][49] == {"step": 50, "metrics": {"loss": 0.2, "margin": 50.0, "validation/loss": 0.5}}


def test_metrics_are_chosen_cut_and_thinned(trained: tuple[Api, str]):
    api, job_id = trained
    query = "keys=margin&from_step=10&to_step=90&max_points=5"
    found = api.client.get(f"/v1/jobs/{job_id}/metrics?{query}").json()
    assert [point["step"] for point in found["data"]] == [10, 30, 50, 70, 90]
    assert found["keys"] == ["margin"]
    assert all(point["metrics"] == {"margin": float(point["step"])} for point in found["data"])


def test_a_thinned_curve_keeps_its_extremes_where_they_were(trained: tuple[Api, str]):
    api, job_id = trained
    path = f"/v1/jobs/{job_id}/metrics"
    points = api.client.get(f"{path}?keep=extremes&max_points=6").json()["data"]
    every = {one["step"]: one["metrics"] for one in api.client.get(path).json()["data"]}
    assert all(every[one["step"]].items() >= one["metrics"].items() for one in points)
    for name in ("loss", "margin"):
        kept = [one["metrics"][name] for one in points if name in one["metrics"]]
        told = [one[name] for one in every.values()]
        assert len(kept) <= 6
        assert {min(told), max(told), told[0], told[-1]} <= set(kept)
    problem = assert_problem(api.client.get(f"{path}?keep=extremes&format=csv"), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "query:keep"


def test_metrics_as_csv_have_a_column_for_each_key(trained: tuple[Api, str]):
    api, job_id = trained
    answer = api.client.get(f"/v1/jobs/{job_id}/metrics?format=csv&from_step=49&to_step=50&keys=loss,validation/loss")
    assert answer.headers["content-type"].startswith("text/csv")
    table = list(csv.reader(io.StringIO(answer.text)))
    assert table == [["step", "loss", "validation/loss"], ["49", "0.21", ""], ["50", "0.2", "0.5"]]


@pytest.mark.parametrize(
    "query", ["max_points=7", "max_points=1", "max_points=40", "from_step=31&max_points=1000", "keys=validation/loss"]
)
def test_a_csv_that_is_read_in_pieces_has_the_steps_and_figures_of_the_json(
    trained: tuple[Api, str], query: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("service.store.metrics.AT_ONCE", 3)
    monkeypatch.setattr("service.api.results.CSV_LINES_AT_ONCE", 2)
    api, job_id = trained
    sparse = [step_completed(step, 2000) for step in (102, 103, 900, 1999, 2000)]
    api.say(job_id, 1, *sparse)
    points = api.client.get(f"/v1/jobs/{job_id}/metrics?{query}").json()
    answer = api.client.get(f"/v1/jobs/{job_id}/metrics?format=csv&{query}")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    told = [(int(row.pop("step")), {name: float(text) for name, text in row.items() if text}) for row in rows]
    assert told == [(point["step"], point["metrics"]) for point in points["data"]]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("format=xml", "query:format"), ("from_step=-1", "query:from_step"), ("to_step=1e99", "query:to_step")],
)
def test_wrong_metric_parameters_are_named(api: Api, query: str, pointer: str):
    problem = assert_problem(api.client.get(f"/v1/jobs/{api.new_job()}/metrics?{query}"), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == pointer


def test_unknown_metric_is_named_with_the_ones_there_are(trained: tuple[Api, str]):
    api, job_id = trained
    answer = api.client.get(f"/v1/jobs/{job_id}/metrics?keys=loss,marjin&from_step=5")
    (found,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert (found["pointer"], found["code"]) == ("query:keys", "unknown_metric")
    assert found["message"] == "there is no metric 'marjin'; did you mean 'margin'?"
    coming = api.client.get(f"/v1/jobs/{job_id}/metrics?keys=loss,validation/margin&from_step=99")
    assert coming.json()["keys"] == ["loss"], "the validation split comes later"


def test_a_misspelt_metric_reads_no_figures(trained: tuple[Api, str]):
    api, job_id = trained
    sent = sent_by(api.parts.store)
    assert_problem(api.client.get(f"/v1/jobs/{job_id}/metrics?keys=marjin"), 422, "invalid_request")
    assert sent
    assert not [statement for statement, _ in sent if "FROM metrics" in statement]


def test_as_many_points_as_may_be_asked_for_are_answered(any_api: Api):
    job_id = any_api.new_job()
    any_api.say(job_id, any_api.claim(job_id), *(step_completed(step, 9) for step in range(1, 10)))
    found = any_api.client.get(f"/v1/jobs/{job_id}/metrics?max_points=66000")
    assert [point["step"] for point in found.json()["data"]] == list(range(1, 10))


def test_no_metric_is_unknown_before_there_are_any(api: Api):
    assert api.client.get(f"/v1/jobs/{api.new_job()}/metrics?keys=marjin").json()["data"] == []


def test_report_is_the_proof_as_it_was_stored(any_api: Api):
    job_id = any_api.new_job()
    problem = assert_problem(any_api.client.get(f"/v1/jobs/{job_id}/report"), 404, "report_not_found")
    assert "queued" in problem["detail"]
    any_api.run(job_id)
    assert any_api.client.get(f"/v1/jobs/{job_id}/report").json() == REPORT_EXAMPLE


def test_report_page_is_shown_by_browsers_and_can_do_nothing_there(any_api: Api):
    job_id = any_api.new_job()
    problem = assert_problem(any_api.client.get(f"/v1/jobs/{job_id}/report.html"), 404, "report_not_found")
    assert "queued" in problem["detail"]
    any_api.run(job_id)
    answer = any_api.client.get(f"/v1/jobs/{job_id}/report.html", follow_redirects=False)
    assert (answer.status_code, answer.content) == (200, PAGE), "never a redirect to a store that sends no headers"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-disposition"] == "inline"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"sandbox", "default-src 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert not any(part.startswith("script-src") or "allow-" in part for part in policy)
    head = any_api.client.head(f"/v1/jobs/{job_id}/report.html")
    assert (head.headers["content-length"], head.headers["etag"]) == (str(len(PAGE)), answer.headers["etag"])
    unchanged = any_api.client.get(f"/v1/jobs/{job_id}/report.html", headers={"If-None-Match": head.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def test_report_that_was_made_without_a_page_has_none(api: Api):
    job_id = api.new_job()
    api.evaluate(job_id, api.claim(job_id), 4, page=None)
    assert api.client.get(f"/v1/jobs/{job_id}/report").json() == REPORT_EXAMPLE
    assert_problem(api.client.get(f"/v1/jobs/{job_id}/report.html"), 404, "report_not_found")


def test_report_of_format_1_is_served_as_format_2(api: Api):
    job_id = api.new_job()
    line = {name: value for name, value in REPORT_EXAMPLE["rewards"][0].items() if name in FORMAT_1_LINE}
    old = {name: value for name, value in REPORT_EXAMPLE.items() if name in FORMAT_1}
    old |= {"format_version": 1, "diversity": {"base": 0.21, "policy": 0.2}}
    old["rewards"] = [{**line, "win_rate_interval": line["gain_interval"]}]
    api.say(job_id, api.claim(job_id), EvaluationCompleted(step=400, path="report.json", report=old))
    found = api.client.get(f"/v1/jobs/{job_id}/report").json()
    assert found["format_version"] == 2
    assert (found["policy"]["label"], found["curves"], found["drift"]) == ("step 400", [], None)


def test_sample_image_can_be_listed_and_downloaded(any_api: Api):
    job_id = any_api.new_job()
    any_api.run(job_id)
    (sample,) = any_api.client.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    assert (sample["step"], sample["prompts"], sample["size_bytes"]) == (4, ["a red circle"], len(PNG))
    assert any_api.download(sample["image_url"]) == PNG
    assert any_api.client.head(sample["image_url"]).headers["etag"] == f'"{sample["sha256"]}"'
    missing = any_api.client.get(f"/v1/jobs/{job_id}/samples/smp_{'0' * 26}.png")
    assert_problem(missing, 404, "sample_not_found")


def test_a_sample_says_where_each_image_stands_in_it_where_the_run_said_so(any_api: Api):
    job_id = any_api.new_job()
    attempt = any_api.claim(job_id)
    grid = SampleGrid.model_validate(SAMPLE_EXAMPLE["grid"])
    any_api.draw_sample(job_id, attempt, 1)
    any_api.draw_sample(job_id, attempt, 2, prompts=SAMPLE_EXAMPLE["prompts"], grid=grid)
    old, new = any_api.client.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    assert old["grid"] is None
    assert new["grid"] == SAMPLE_EXAMPLE["grid"]


def test_a_sample_names_the_checkpoint_of_its_step_while_there_is_one(any_api: Api):
    job_id = any_api.new_job()
    attempt = any_api.claim(job_id)
    for step in (1, 2, 3):
        any_api.draw_sample(job_id, attempt, step)
    for step in (2, 3):
        any_api.save_checkpoint(job_id, attempt, step)
    leases.finish(any_api.parts.store, job_id, attempt, "succeeded")
    old, new = any_api.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    assert [one["checkpoint_id"] for one in samples_of(any_api, job_id)] == [None, old["id"], new["id"]]
    any_api.client.delete(f"/v1/checkpoints/{old['id']}").raise_for_status()
    assert [one["checkpoint_id"] for one in samples_of(any_api, job_id)] == [None, None, new["id"]]


def samples_of(api: Api, job_id: str) -> list[dict[str, Any]]:
    return api.client.get(f"/v1/jobs/{job_id}/samples").json()["data"]


def test_manifest_names_everything_by_hash(api: Api):
    job_id = api.new_job()
    before = api.client.get(f"/v1/jobs/{job_id}/manifest").json()
    assert (before["versions"], before["checkpoints"], before["report_sha256"]) == ({}, [], None)
    api.run(job_id)
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    manifest = api.client.get(f"/v1/jobs/{job_id}/manifest").json()
    assert (manifest["spec"], manifest["spec_sha256"]) == (job["spec"], job["spec_sha256"])
    assert manifest["versions"] == {"attune": "0.1.0"}
    assert manifest["report_sha256"] == sha256_of_json(REPORT_EXAMPLE)
    assert manifest["datasets"][0]["id"] == job["spec"]["method"]["dataset"]["id"]
    assert {file["path"] for file in manifest["checkpoints"][0]["files"]} == set(CHECKPOINT_FILES)


def test_logs_show_the_end_of_each_attempts_output(api: Api):
    job_id = api.new_job()
    assert api.client.get(f"/v1/jobs/{job_id}/logs").json()["data"] == []
    api.run(job_id)
    (log,) = api.client.get(f"/v1/jobs/{job_id}/logs").json()["data"]
    assert (log["attempt"], log["text"]) == (1, "loading\ndone\n")


def test_a_job_shows_the_pace_that_it_told_last(trained: tuple[Api, str]):
    api, job_id = trained
    assert api.client.get(f"/v1/jobs/{job_id}").json()["throughput"] is None
    attempt = api.client.get(f"/v1/jobs/{job_id}").json()["attempt"]
    for rate in (3.0, 4.5):
        pace = Throughput(
            num_steps=50,
            examples_per_second=rate,
            tflops_per_second=120.0,
            mfu=0.25,
            peak_device_gib=24.5,
            peak_host_gib=8.0,
            waiting_share=0.01,
            saving_share=0.0,
        )
        api.say(job_id, attempt, ThroughputMeasured(step=100, throughput=pace))
    assert api.client.get(f"/v1/jobs/{job_id}").json()["throughput"] == pace.model_dump()


def test_what_half_precision_takes_is_a_metric_of_the_job(trained: tuple[Api, str]):
    api, job_id = trained
    attempt = api.client.get(f"/v1/jobs/{job_id}").json()["attempt"]
    api.say(job_id, attempt, PrecisionMeasured(precision="bf16", logit_error=0.3, logit_rms=2.0, num_examples=4))
    found = api.client.get(f"/v1/jobs/{job_id}/metrics?keys=logit_error").json()
    assert found["data"] == [{"step": 0, "metrics": {"logit_error": 0.3}}]


def test_what_encoding_images_in_half_takes_is_a_metric_of_the_job(trained: tuple[Api, str]):
    api, job_id = trained
    attempt = api.client.get(f"/v1/jobs/{job_id}").json()["attempt"]
    errors = {"fp16": None, "bf16": 4.5}
    api.say(job_id, attempt, VaePrecisionChosen(precision="bf16", latent_errors=errors))
    found = api.client.get(f"/v1/jobs/{job_id}/metrics?keys=latent_error").json()
    assert found["data"] == [{"step": 0, "metrics": {"latent_error": 4.5}}]


def test_the_tensorboard_log_is_a_zip_of_what_all_attempts_wrote(any_api: Api):
    job_id = any_api.new_job()
    url = f"/v1/jobs/{job_id}/tensorboard"
    assert_problem(any_api.client.get(url), 404, "tensorboard_not_found")
    attempt = any_api.claim(job_id)
    for number in range(2):
        name, content = f"events.out.tfevents.000000000{attempt}.{number}", f"events {number}".encode()
        key = keys.tensorboard_key(DEFAULT_PROJECT_ID, job_id, attempt, name)
        file = any_api.keep(name, key, content).model_copy(update={"crc32": zlib.crc32(content)})
        told = TrackingFileWritten(path=f"tensorboard/{name}")
        events.record_event(any_api.parts.store, job_id, attempt, told, [file])
    with zipfile.ZipFile(io.BytesIO(any_api.client.get(url).content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"events.out.tfevents.0000000001.{number}": f"events {number}".encode() for number in range(2)
        }
    any_api.client.post(f"/v1/jobs/{job_id}/cancel")
    assert any_api.client.head(url).status_code == 200
