"""One job: what it does now, its curves, pictures, report and checkpoints, and what can be asked of it."""

import json
import secrets
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, Form, Query, Response
from fastapi.responses import JSONResponse

from alignment_core.events import Event, StepCompleted
from alignment_core.spec.exports import OF_A_LORA, OF_A_WHOLE_MODEL, ExportFormat
from service.web.advice import advice_for
from service.web.asking import Api, ApiDep, part
from service.web.draw_page import OncePerForm
from service.web.job_log import mark_of, news, shown
from service.web.rendering import PagesDep
from service.web.sign_in import Csrf, refuse_other_sites
from service.web.timeline import phases

POINTS = 1_000
MOST_LISTED = 100
EVENTS_AT_ONCE = 50
OF_THE_CURVES = StepCompleted.model_fields["type"].default
BESIDE_THE_CURVES = [
    name for one in get_args(get_args(Event)[0]) if (name := one.model_fields["type"].default) != OF_THE_CURVES
]
PICTURES_AT_ONCE = 50
CHECKPOINTS_AT_ONCE = 25
Before = Annotated[str, Query(description="What is older than this one.")]
Verb = Literal["cancel", "pause", "resume", "checkpoint", "sample", "probe"]
EXPORTS_OF = {"lora": OF_A_LORA, "full": OF_A_WHOLE_MODEL}
FORMATS: dict[ExportFormat, str] = {
    "peft": "PEFT",
    "diffusers": "diffusers",
    "kohya": "ComfyUI, A1111 (kohya)",
    "merged": "whole model, diffusers",
    "single_file": "whole model, one file",
}
TAKEAWAYS: dict[str, tuple[ExportFormat, ...]] = {"lora": ("diffusers", "kohya"), "full": ("merged", "single_file")}
TOOLS: dict[ExportFormat, str] = {
    "diffusers": "diffusers",
    "kohya": "ComfyUI, A1111",
    "merged": "diffusers",
    "single_file": "ComfyUI, A1111",
}
NOW = {  # of phases that a reader waits through without a step
    "loading": "The model and the data are read.",
    "checking": "Before it begins, a step, a checkpoint, a picture and the rewards are tried.",
    "caching": "Every picture and prompt is encoded once.",
    "compiling": "The model is compiled, so that steps are faster.",
    "sampling": "Pictures are drawn from the same seeds by the model it started from and by the aligned one.",
    "scoring": "The rewards score the pictures.",
    "evaluating": "The report is made, on prompts that were held out.",
    "saving": "A checkpoint is written.",
    "uploading": "The files are stored.",
}

router = APIRouter(include_in_schema=False)


@router.get("/jobs/{job_id}")
async def show_job(
    pages: PagesDep, api: ApiDep, job_id: str, pictures: Before = "", checkpoints: Before = "", events: Before = ""
) -> Response:
    """Of what there may be thousands the newest; `pictures`, `checkpoints` and `events` are the ids that older ones come after."""
    path = f"/v1/jobs/{part(job_id)}"
    job = await api.get(path)
    latest = (await api.get(f"{path}/events", limit=1, newest_first=True))["data"]
    told = {"limit": EVENTS_AT_ONCE, "newest_first": True, "type": BESIDE_THE_CURVES, "after": events}
    saved = await api.get(f"{path}/checkpoints", limit=CHECKPOINTS_AT_ONCE, newest_first=True, after=checkpoints)
    warnings = (await api.get(f"{path}/events", limit=MOST_LISTED, type="warning_raised"))["data"]
    result = await _result(api, job)
    return await pages.show(
        "job.html",
        job=job,
        report=await api.get_or_none(f"{path}/report"),
        samples=await api.get(f"{path}/samples", limit=PICTURES_AT_ONCE, newest_first=True, after=pictures),
        checkpoints=saved,
        older={"pictures": pictures, "checkpoints": checkpoints, "events": events},
        warnings=[{**one["data"], "advice": advice_for(one["data"]["code"])} for one in warnings],
        phases=phases(job["usage"]["seconds"] if job["usage"] else {}),
        curves_url=f"{pages.root}{path}/metrics?keep=extremes&max_points={POINTS}",
        stream_url=f"{pages.root}{path}/events{_after(latest)}",
        events=await api.get(f"{path}/events", **told),
        spec=json.dumps(job["spec"], indent=2, ensure_ascii=False),
        exports_of=EXPORTS_OF,
        formats=FORMATS,
        takeaways=TAKEAWAYS,
        tools=TOOLS,
        now="" if job["is_terminal"] else NOW.get(job["phase"], ""),
        result=result,
        champion=await api.get_or_none("/v1/aliases/champion") if result else None,
        can=_can(job),
        once=secrets.token_hex(16),
    )


@router.get("/jobs/{job_id}/log")
async def show_log(pages: PagesDep, api: ApiDep, job_id: str, seen: str | None = None) -> Response:
    """What the training process wrote, attempt by attempt; for a page that has `seen` some of it what is new, as JSON."""
    path = f"/v1/jobs/{part(job_id)}"
    job = await api.get(path)
    pieces = shown((await api.get(f"{path}/logs"))["data"], job["is_terminal"])
    if seen is not None:
        told = [one._asdict() for one in news(pieces, seen)]
        return JSONResponse({"pieces": told, "seen": mark_of(pieces), "has_ended": job["is_terminal"]})
    latest = (await api.get(f"{path}/events", limit=1, newest_first=True))["data"]
    stream_url = f"{pages.root}{path}/events{_after(latest)}"
    return await pages.show("log.html", job=job, pieces=pieces, seen=mark_of(pieces), stream_url=stream_url)


@router.post("/jobs/{job_id}/{verb}", dependencies=[Depends(refuse_other_sites)])
async def ask_of_job(pages: PagesDep, api: ApiDep, job_id: str, verb: Verb, csrf: Csrf = "") -> Response:
    """Cancel, pause or resume it, or have it save, draw or probe after its next step; then its page again."""
    path = f"/v1/jobs/{part(job_id)}"
    if verb in ("checkpoint", "sample", "probe"):
        await api.post(f"{path}/actions", csrf, json={"action": verb})
    else:
        await api.post(f"{path}/{verb}", csrf)
    return pages.go_to(f"/jobs/{part(job_id)}")


@router.post("/jobs/{job_id}/checkpoints/{checkpoint_id}/fork", dependencies=[Depends(refuse_other_sites)])
async def fork(
    pages: PagesDep,
    api: ApiDep,
    checkpoint_id: str,
    steps: Annotated[int, Form(ge=1)],
    once: OncePerForm = "",
    csrf: Csrf = "",
) -> Response:
    """A job that goes on from the checkpoint, optimiser and all, up to `steps`; then its page."""
    asked = {"mode": "resume", "steps": steps}
    once = once and f"{once}-{part(checkpoint_id)}-{steps}"  # of a page with many such forms
    made = await api.post(f"/v1/checkpoints/{part(checkpoint_id)}/fork", csrf, json=asked, once=once)
    return pages.go_to(f"/jobs/{made['id']}")


async def _result(api: Api, job: dict[str, Any]) -> dict[str, Any] | None:
    """What the job has made, once it has ended; None where there is nothing, or no longer."""
    found = job["result_checkpoint_id"] if job["is_terminal"] else None
    return await api.get_or_none(f"/v1/checkpoints/{part(found)}") if found else None


def _after(latest: list[dict[str, Any]]) -> str:
    """What a stream is asked that goes on where the page ends."""
    return f"?after={latest[0]['id']}" if latest else ""


def _can(job: dict[str, Any]) -> dict[str, bool]:
    """What may be asked of the job in its state."""
    status, error = job["status"], job["error"]
    is_active = not job["is_terminal"]
    return {
        "cancel": is_active and status != "cancelling",
        "pause": status in ("queued", "starting", "running"),
        "resume": status == "paused" or (status == "failed" and bool(error and error["retryable"])),
        "act": status == "running",
    }
