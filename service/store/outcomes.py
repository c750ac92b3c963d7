"""What came of jobs, in a line each: read out of their reports by the database, since a report may have thousands of images."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.models import Report
from service.store.records.jobs import Gain


def outcomes(session: Session, job_ids: Collection[str]) -> dict[str, Gain]:
    """What the latest report of each says of its first reward; a job without a report is not in it."""
    if not job_ids:
        return {}
    report = Report.report
    query = (
        sa.select(
            Report.job_id,
            report["primary_reward"].as_string(),
            report["verdict"].as_string(),
            report["rewards"].as_json(),
        )
        .where(Report.job_id.in_(job_ids))
        .order_by(Report.step)
    )
    found = {}
    for job_id, primary, verdict, rewards in session.execute(query):
        scores = next((one for one in rewards or () if one["name"] == primary), None)
        if scores is not None:
            interval = scores["gain_interval"]
            found[job_id] = Gain(
                reward=primary,
                gain=scores["gain"],
                low=interval["low"],
                high=interval["high"],
                confidence=interval["confidence"],
                verdict=verdict,
            )
    return found
