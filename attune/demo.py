"""`attune demo`: the whole service on this machine, one real job through it, and the proof.

Data goes in over HTTP, an aligned checkpoint comes out over HTTP, and plain diffusers loads it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from attune.client import Client
from attune.local_server import LocalServer, demo_assets
from attune.proof import table_of
from attune.resources.jobs import Job
from attune.specs import read_spec
from attune.watch import follow

BEST_NUM_THREADS = "1"  # of torch, for so small a model: two under contention were five times slower

STOPPING = "stopping, when what runs has saved its state; Ctrl-C again: at once"


class DemoError(Exception):
    """The demo did not end as it should; says where."""


def run_demo(folder: Path, console: Console) -> None:
    """Run it all in `folder`; raises `DemoError` when the job failed or the aligned model is not better."""
    started = time.monotonic()
    console.print(
        "starting a broker, the API and two workers; the whole demo takes a minute or two of CPU", highlight=False
    )
    assets = demo_assets()
    if assets is None:
        raise DemoError("the demo's model is not installed: run this from a clone of the repository")
    server_dir = folder / "server"
    if server_dir.exists():
        shutil.rmtree(server_dir)
    environment = {
        "OMP_NUM_THREADS": BEST_NUM_THREADS,
        **os.environ,
        "ATTUNE_CATALOG_PATH": str(assets / "catalog.json"),
    }
    with LocalServer(data_dir=server_dir, port=0, environment=environment) as server, Client(server.url) as client:
        console.print(f"the service is up at {server.url}", highlight=False)
        try:
            job = _align(client, server.url, assets, console)
            picture, report_path = _collect(client, job, assets, folder, console)
        except KeyboardInterrupt:
            console.print(STOPPING)
            raise
    console.print(f"all in {time.monotonic() - started:.0f} s", highlight=False)
    console.print(f"picture: {picture}", highlight=False, soft_wrap=True)
    console.print(f"report: {report_path}", highlight=False, soft_wrap=True)
    console.print(f"page: {report_path.with_suffix('.html')}", highlight=False, soft_wrap=True)
    again = f"attune up --data-dir {server_dir}"
    console.print(f"the job's page: {again}, then http://127.0.0.1:8000/jobs/{job.id}", highlight=False, soft_wrap=True)
    if (verdict := json.loads(report_path.read_text())["verdict"]) != "improved":
        raise DemoError(f"the aligned model is not better than the one it started from: {verdict}")


def _align(client: Client, url: str, assets: Path, console: Console) -> Job:
    """Upload the preferences, post the job and follow it to its end."""
    console.print("uploading preference pairs; a process checks them", highlight=False)
    dataset = client.wait_for_dataset(client.upload_dataset(assets / "pairs.parquet", name="colourful shapes").id)
    console.print(f"{dataset.filename}: {dataset.num_usable_rows} preference pairs, checked", highlight=False)
    spec = read_spec(assets.parent / "job.yaml")
    spec["method"]["dataset"] = {"type": "stored", "id": dataset.id}
    spec["evaluation"]["prompts"] = (assets / "prompts.txt").read_text(encoding="utf-8").splitlines()
    job = client.create_job(spec, name="demo")
    console.print(f"posted {job.id}: watch it at {url}/jobs/{job.id}", highlight=False, soft_wrap=True)
    job = follow(client, job.id, console)
    if job.status != "succeeded":
        reason = f"{job.error.message} [{job.error.code}]" if job.error else "no error was given"
        raise DemoError(f"the job {job.status}: {reason}\n{client.logs(job.id)}")
    return job


def _collect(client: Client, job: Job, assets: Path, folder: Path, console: Console) -> tuple[Path, Path]:
    """Download what the job left, load it with diffusers, print the proof; paths of the picture and the report."""
    console.print("downloading the result; a process of plain diffusers loads it and draws", highlight=False)
    aligned = client.download_checkpoint(client.result_checkpoint(job.id), folder / "aligned")
    console.print(f"downloaded the aligned checkpoint to {aligned}", highlight=False, soft_wrap=True)
    report = client.report(job.id)
    report_path = folder / "report.json"
    report_path.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    client.download_report_page(job.id, folder / "report.html")
    picture = client.download_sample(client.samples(job.id)[-1], folder / "picture.png")
    prompt = report.images[0].prompt if report.images else "a big red circle"
    _draw_with_diffusers(assets / "model", aligned, prompt, folder / "aligned.png", console)
    console.print(table_of(report))
    return picture, report_path


def _draw_with_diffusers(base: Path, aligned: Path, prompt: str, output: Path, console: Console) -> None:
    arguments = ["--base", str(base), "--aligned", str(aligned), "--prompt", prompt, "--output", str(output)]
    command = [sys.executable, "-m", "demo.sample_aligned", *arguments]
    environment = {"OMP_NUM_THREADS": BEST_NUM_THREADS, **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise DemoError(f"diffusers could not load the aligned checkpoint:\n{done.stderr[-2000:]}")
    console.print(f"diffusers loaded it and drew {prompt!r}: {output}", highlight=False, soft_wrap=True)
