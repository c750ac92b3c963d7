"""What the operator reads is what the code reads."""

import re
from pathlib import Path

import pytest
import yaml

from service.settings import Settings
from service.store.catalog import Catalog

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "deployment.md"
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_deployment_guide_with_its_meaning(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert f"`ATTUNE_{name.upper()}`" in DOCS.read_text(encoding="utf-8")
    assert description in DOCS.read_text(encoding="utf-8")


def test_nothing_starts_with_a_password_that_others_know() -> None:
    named = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY_ID)\w*)(:[?-])?([^}]*)\}", COMPOSE.read_text(encoding="utf-8"))
    assert {name for name, operator, _ in named if operator == ":?"} == {
        "POSTGRES_PASSWORD",
        "S3_ACCESS_KEY_ID",
        "S3_SECRET_ACCESS_KEY",
    }
    assert [name for name, operator, default in named if operator == ":-" and default] == []


def test_every_variable_of_the_compose_file_is_in_the_example() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))
    written = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert used == written


def test_foreign_images_are_pinned_by_digest() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    foreign = {one["image"] for one in services.values() if "build" not in one}
    bases = {
        line.split()[1] for path in DOCKERFILES for line in path.read_text().splitlines() if line.startswith("FROM ")
    }
    assert len(foreign) == 3
    assert [image for image in foreign | bases if not re.search(r"@sha256:[0-9a-f]{64}$", image)] == []


def test_images_keep_byte_code_which_their_user_could_not_write() -> None:
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        assert "USER attune" in text
        assert "--no-compile" not in text
        assert "PYTHONDONTWRITEBYTECODE" not in text


def test_the_catalog_of_the_compose_file_is_one() -> None:
    assert "sd15" in Catalog.load(ROOT / "catalog" / "catalog.json").models


SCALE = ROOT / "docs" / "scale"


def test_workers_of_one_host_have_cards_of_their_own() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    cards = [services[name]["environment"]["CUDA_VISIBLE_DEVICES"] for name in ("worker", "worker-2")]
    assert cards == ["${ATTUNE_WORKER_GPUS:-0}", "${ATTUNE_SECOND_WORKER_GPUS:-1}"]
    assert services["worker-2"]["environment"]["ATTUNE_DATABASE_URL"]


def test_the_manifests_hold_together() -> None:
    found = list(yaml.safe_load_all((SCALE / "kubernetes.yaml").read_text(encoding="utf-8")))
    by_kind = {one["kind"]: one for one in found}
    assert all({"apiVersion", "kind", "metadata"} <= one.keys() for one in found)
    settings = by_kind["ConfigMap"]["data"]
    assert {name.removeprefix("ATTUNE_").lower() for name in settings} <= Settings.model_fields.keys()
    assert settings["ATTUNE_KUBERNETES_RUNTIME"] == by_kind["TrainingRuntime"]["metadata"]["name"]
    assert settings["ATTUNE_KUBERNETES_QUEUE"] == by_kind["LocalQueue"]["metadata"]["name"]
    assert by_kind["LocalQueue"]["spec"]["clusterQueue"] == by_kind["ClusterQueue"]["metadata"]["name"]
    (node,) = by_kind["TrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]
    ranks, worker = node["template"]["spec"]["template"]["spec"], by_kind["Deployment"]["spec"]["template"]["spec"]
    assert ranks["securityContext"] == worker["securityContext"]  # they write into one folder
    shared = [mount for mount in ranks["containers"][0]["volumeMounts"] if mount["name"] == "attune"]
    assert shared == worker["containers"][0]["volumeMounts"]
    assert ranks["containers"][0]["image"] == worker["containers"][0]["image"]
