"""What a training process is told of the worker's environment."""

import pytest

from alignment_core.rewards.signed_post import Access
from alignment_core.spec import JobSpec
from service.settings import Settings
from worker.run import remote_reward_environment, tracker_environment, training_environment

SECRET = "a secret of the operator's"


def spec(*rewards: dict) -> JobSpec:
    dataset = {"type": "local", "path": "/data/pairs.parquet"}
    return JobSpec.model_validate(
        {
            "model": {"type": "local", "path": "/models/sd"},
            "method": {"type": "diffusion_dpo", "dataset": dataset},
            "evaluation": {"rewards": rewards},
        }
    )


REMOTE = {"type": "remote", "url": "https://rewards.example.org/"}


def test_keys_and_addresses_stay_with_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_REMOTE_REWARD_SECRET", SECRET)
    monkeypatch.setenv("ATTUNE_DATABASE_URL", "sqlite://")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hush")
    assert not [name for name in training_environment() if name.startswith(("ATTUNE_", "AWS_", "OTEL_"))]


@pytest.mark.parametrize("reward", [REMOTE, {"type": "weighted_sum", "parts": [{"weight": 1, "reward": REMOTE}]}])
def test_a_job_with_a_remote_reward_is_given_its_secret_and_hosts_and_nothing_else(reward: dict) -> None:
    settings = Settings(remote_reward_hosts=("rewards.example.org", "localhost"), remote_reward_secret=SECRET)  # type: ignore[arg-type]
    given = remote_reward_environment(settings, spec({"type": "brightness"}, reward))
    assert given == {
        "ATTUNE_REMOTE_REWARD_HOSTS": "rewards.example.org,localhost",
        "ATTUNE_REMOTE_REWARD_SECRET": SECRET,
    }
    assert Access.from_environment(given) == Access(SECRET, frozenset(settings.remote_reward_hosts))


def test_other_jobs_are_given_nothing() -> None:
    settings = Settings(remote_reward_hosts=("rewards.example.org",), remote_reward_secret=SECRET)  # type: ignore[arg-type]
    assert remote_reward_environment(settings, spec({"type": "brightness"})) == {}


def test_a_worker_that_allows_no_host_says_so() -> None:
    assert remote_reward_environment(Settings(), spec(REMOTE)) == {"ATTUNE_REMOTE_REWARD_HOSTS": ""}


def test_only_a_tracker_that_is_switched_on_is_given_what_lets_it_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(
        "WANDB_SERVICE", raising=False
    )  # a client that ran in this process leaves where its helper listens
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    assert not {"WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN"} & training_environment().keys()
    assert tracker_environment(Settings(trackers=("tensorboard",))) == {}
    assert tracker_environment(Settings(trackers=("wandb",))) == {"WANDB_API_KEY": SECRET}
