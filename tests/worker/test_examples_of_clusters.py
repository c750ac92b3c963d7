"""What the documentation shows of a cluster is what the launchers submit."""

import shlex
from pathlib import Path

import yaml

from service.settings import Settings
from worker.launch import ALONE
from worker.launchers.contract import Plan
from worker.launchers.folder import num_nodes
from worker.launchers.kubeflow import KubeflowEngine, train_job
from worker.launchers.slurm import SlurmEngine, script_of

SCALE = Path(__file__).parents[2] / "docs" / "scale"
WORKDIR = Path("/shared/attune/work/job_01JZZZZZZZZZZZZZZZZZZZZZZZ/attempt-2")
PLAN = Plan(
    job_id="job_01JZZZZZZZZZZZZZZZZZZZZZZZ",
    attempt=2,
    trainer=ALONE,
    arguments=(),
    processes=16,
    until=0.0,
    workdir=WORKDIR,
    grace_seconds=30.0,
    env={},
)


def settings_of(path: Path) -> Settings:
    written = shlex.split(path.read_text(encoding="utf-8"), comments=True)
    named = dict(line.split("=", 1) for line in written)
    found = {name.removeprefix("ATTUNE_").lower(): value for name, value in named.items() if name.startswith("ATTUNE_")}
    assert found.keys() <= Settings.model_fields.keys()
    return Settings(**found)  # type: ignore[arg-type]


def without_lease(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#SBATCH --comment=")]


def test_the_script_of_the_guide_is_what_its_settings_submit() -> None:
    settings = settings_of(SCALE / "slurm.env")
    assert settings.launcher == "slurm"
    options = tuple(shlex.split(settings.slurm_options))
    engine = SlurmEngine(options, settings.processes_per_node, python=("/opt/attune/bin/python", "-P", "-m"))
    shown = (SCALE / "slurm.sh").read_text(encoding="utf-8")
    assert without_lease(shown) == without_lease(script_of(engine, PLAN, WORKDIR / "gang-1", 2))


def test_the_train_job_of_the_guide_is_what_is_submitted() -> None:
    engine = KubeflowEngine("https://kubernetes.default", "attune", "attune", queue="attune")
    shown = yaml.safe_load((SCALE / "train_job.yaml").read_text(encoding="utf-8"))
    made = train_job(engine, PLAN, WORKDIR / "gang-1", 2)
    for one in (shown, made):
        del one["metadata"]["annotations"]  # the lease at the time
    assert shown == made


def test_processes_are_spread_evenly_over_the_fewest_nodes() -> None:
    assert [num_nodes(processes, 8) for processes in (1, 8, 9, 12, 16, 17)] == [1, 1, 3, 2, 2, 17]
