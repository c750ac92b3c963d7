"""Evaluations and candidates as they are queued: models that draw side by side, to be scored or to be looked at.

Both are rows of `jobs` (`kinds.py`): they wait, are claimed, fenced, cancelled and resumed as every other.
"""

from collections.abc import Mapping

from alignment_core.spec import CandidatesSpec, Contest
from alignment_core.spec.sources import label_of
from service.store import jobs
from service.store.ancestry import hold_checkpoints
from service.store.catalog import checkpoint_sources, stored_prompts, stored_weights
from service.store.database import Store
from service.store.ids import new_id
from service.store.models import Dataset, PromptSet
from service.store.queueing import add, hold_uploads, new_row
from service.store.records.jobs import JobRecord


def create(
    store: Store,
    *,
    project_id: str,
    spec: Contest,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    contest_id: str | None = None,
    before_others: bool = False,
) -> JobRecord:
    """Queue an evaluation or candidates, before all jobs where somebody sits and waits for it.

    Raises as `jobs.create`: what the spec names has to be there. Creating an id a second time returns what is there.
    """
    prefix, method = ("cand", "candidates") if isinstance(spec, CandidatesSpec) else ("eval", "evaluation")
    anchor = next(one for one in spec.contenders if one.name == spec.anchor_name)
    with store.write() as session:
        if contest_id is not None and (there := jobs.row_of(session, project_id, contest_id)) is not None:
            return jobs.whole(session, there)
        hold_uploads(session, Dataset, project_id, sorted({found for _, found in stored_weights(spec)}))
        hold_uploads(session, PromptSet, project_id, sorted({source.id for _, source in stored_prompts(spec)}))
        hold_checkpoints(session, project_id, sorted({found for _, found in checkpoint_sources(spec)}))
        row = new_row(
            session,
            project_id,
            contest_id or new_id(prefix),
            spec,
            method=method,
            model=label_of(anchor.model),
            name=name,
            metadata=metadata,
        )
        row.total_steps, row.turn = spec.num_images, 0 if before_others else 1
        add(session, row)
        return jobs.whole(session, row)
