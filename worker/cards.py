"""What this worker computes on, told to the store when it starts, and how fast its jobs were, told when they end.

The worker has no torch; NVIDIA's own tool says which GPU there is.
"""

import math
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil
import structlog

from alignment_core.costs.learning import learnt
from alignment_core.costs.rates import corrected, rates_of_card
from alignment_core.costs.work import work_of
from alignment_core.events import DatasetChecked, RunStarted
from alignment_core.spec import AliasSource, CatalogSource, CheckpointSource, JobSpec
from alignment_core.spec.prompts import num_expected
from service.resource_classes import ResourceClass
from service.store import cards, known_models
from service.store.events import first_of
from service.store.records.catalog import CardRecord
from service.store.records.jobs import JobRecord
from worker.parts import WorkerParts

ASK_SECONDS = 20.0
LONGEST_NAME = 200
SHARE_OF_NAMED = 0.95  # an H100 of 80 GiB says that it has 79.6

log = structlog.get_logger()


def cards_here() -> list[CardRecord]:
    """The GPUs of this machine, and its processor."""
    processor = CardRecord(name=_processor()[:LONGEST_NAME], device="cpu", memory_bytes=psutil.virtual_memory().total)
    return [*_gpus(), processor]


def announce(parts: WorkerParts) -> None:
    """Say which cards this worker has."""
    here = cards_here()
    for card in here:
        cards.announce(parts.store, card)
    if parts.settings.launcher == "local":
        for one in too_large(parts.serves, here):
            log.error("class_larger_than_cards", resource_class=one.name, gib=one.gib)


def too_large(classes: Sequence[ResourceClass], here: Sequence[CardRecord]) -> tuple[ResourceClass, ...]:
    """Classes of whose jobs this machine may not hold every one; without a GPU it is its own memory that counts.

    A card has a little less than it is sold with.
    """
    gpus = [card.memory_bytes for card in here if card.device == "cuda"]
    room = min(gpus or [card.memory_bytes for card in here]) / SHARE_OF_NAMED / 2**30
    return tuple(one for one in classes if math.isfinite(one.gib) and one.gib > room)


def learn_from(parts: WorkerParts, job: JobRecord) -> None:
    """Keep how fast a job was that has succeeded in one attempt, for the estimates of others."""
    if job.attempt != 1 or job.resume_from_checkpoint_id is not None or job.check_only:
        return
    started, checked = (first_of(parts.store, job.id, kind) for kind in ("run_started", "dataset_checked"))
    if started is None:
        return
    begun = RunStarted.model_validate(started)
    device = begun.device
    card = next((one for one in cards_here() if one.device == device), None)
    spec, source = JobSpec.model_validate(job.spec), _files_of(parts, JobSpec.model_validate(job.spec))
    known = None if source is None else known_models.recall(parts.store, source)
    report = None if known is None else known.report
    if card is None or report is None or report.family is None:
        return
    examples = None if checked is None else DatasetChecked.model_validate(checked).num_training_examples
    prompts = num_expected(spec.evaluation.prompts, unknown=spec.evaluation.max_prompts)
    work = work_of(spec, report, report.family, num_examples=examples, num_prompts=prompts)
    if work is None:
        return
    assumed = rates_of_card(card.name, is_gpu=device == "cuda", is_half=begun.precision != "fp32")
    known = corrected(assumed, cards.rates_of(parts.store, card.name, report.family))
    rates = learnt(work, cards.phase_seconds(parts.store, job.id, job.attempt), known)
    cards.learn(parts.store, card.name, report.family, rates)
    log.info("rates_learnt", card=card.name, family=report.family, phases=sorted(rates))


def _files_of(parts: WorkerParts, spec: JobSpec) -> known_models.ModelFiles | None:
    if isinstance(spec.model, CatalogSource):
        entry = parts.catalog.models.get(spec.model.name)
        return None if entry is None else entry.source
    return None if isinstance(spec.model, CheckpointSource | AliasSource) else spec.model


def _gpus() -> list[CardRecord]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip(" -1"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits", *chosen(visible)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []  # no such tool: no such card
    return gpus_in(answer.stdout) if answer.returncode == 0 else []


def chosen(visible: str | None) -> list[str]:
    """The cards that this worker's jobs see, as nvidia-smi is told them; parts of a card it tells nothing of."""
    ids = [one.strip() for one in (visible or "").split(",") if one.strip()]
    return [f"--id={','.join(ids)}"] if ids and all(one.isdecimal() or one.startswith("GPU-") for one in ids) else []


def gpus_in(table: str) -> list[CardRecord]:
    """`NAME, MIB` a line, as nvidia-smi writes it; a card that keeps its memory to itself is left out."""
    rows = [line.rsplit(",", 1) for line in table.splitlines() if "," in line]
    found = {name.strip()[:LONGEST_NAME]: mib.strip() for name, mib in rows}
    return [
        CardRecord(name=name, device="cuda", memory_bytes=int(mib) * 2**20)
        for name, mib in found.items()
        if mib.isdigit()
    ]


def _processor() -> str:
    """With its cores, since twice as many are another machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.processor() or platform.machine())}, {psutil.cpu_count()} threads"
