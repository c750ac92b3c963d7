import json
import re
from pathlib import Path

import pytest

from alignment_core.spec import (
    AttributeClassifierReward,
    CatalogSource,
    HubSource,
    JobSpec,
    LocalDataset,
    LocalSource,
    MethodSpec,
    RewardSpec,
    SingleFileSource,
    Spec,
    StoredDataset,
)
from alignment_core.spec.families import FAMILIES, FamilyName
from alignment_core.spec.places import localize, walk
from demo.assets import ASSETS
from service.api.catalog import members
from service.api.examples import example_of
from service.store.catalog import Catalog, SpecProblem, check_spec, sources_of, stored_datasets

DATASET = "ds_" + "0" * 26
COMMIT = "a" * 40
CONTENT = {
    "models": {
        "shapes": {"type": "local", "path": "model", "family": "sd", "resolution": 32, "description": "a demo"},
        "big": {"type": "hub", "repo_id": "owner/big", "revision": COMMIT, "family": "sd", "resolution": 512},
        "eyes": {"type": "local", "path": "/models/clip", "family": "clip", "resolution": 224},
    },
    "rewards": {
        "shapes-reward": {"type": "attribute_classifier", "path": "classifiers/reward"},
        "shapes-judge": {"type": "attribute_classifier", "path": "classifiers/judge", "judge_only": True},
        "ranks": {"type": "image_reward", "path": "image-reward"},
        "laion": {"type": "aesthetic", "path": "aesthetic"},
    },
}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "catalog.json").write_text(json.dumps(CONTENT))
    return Catalog.load(tmp_path / "catalog.json")


def classifier(name: str) -> dict:
    return {"type": "attribute_classifier", "weights": {"type": "catalog", "name": name}, "name": name}


def spec(model: dict | None = None, dataset: dict | None = None, **evaluation) -> JobSpec:
    return JobSpec.model_validate(
        {
            "model": model or {"type": "catalog", "name": "shapes"},
            "method": {"type": "diffusion_dpo", "dataset": dataset or {"type": "stored", "id": DATASET}},
            "evaluation": evaluation,
        }
    )


def problems(spec: Spec, catalog: Catalog, *, allow_local_paths: bool = False) -> list[tuple[str, str]]:
    return [(p.pointer, p.code) for p in check_spec(spec, catalog, allow_local_paths=allow_local_paths)]


def with_recipes(recipes: dict, folder: Path) -> Catalog:
    shapes = {**CONTENT["models"]["shapes"], "recipes": recipes}
    (folder / "recipes.json").write_text(json.dumps({"models": {"shapes": shapes}}))
    return Catalog.load(folder / "recipes.json")


def test_a_model_keeps_what_is_recommended_for_it(tmp_path: Path) -> None:
    recipes = {"diffusion_dpo": {"method": {"beta": 1000}, "training": {"steps": 120}}, "ddpo": {"seed": 3}}
    assert with_recipes(recipes, tmp_path).models["shapes"].recipes == recipes


@pytest.mark.parametrize(
    ("recipes", "told"),
    [
        ({"diffusion_dpo": {"training": {"step": 120}}}, "diffusion_dpo.training.step: Extra inputs"),
        (
            {"diffusion_dpo": {"method": {"beta": -1}}},
            "diffusion_dpo.method.diffusion_dpo.beta: Input should be greater",
        ),
        ({"dpo": {}}, "dpo.method: "),
        ({"mapo": {"method": {"type": "ddpo"}}}, "mapo.method: expected fields of the method, without its type"),
        ({"mapo": {"model": "other"}}, "mapo.model: a recipe is for one model"),
    ],
)
def test_a_recipe_that_no_spec_could_hold_is_refused(recipes: dict, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        with_recipes(recipes, tmp_path)
    assert "recipes.json, field models.shapes" in str(caught.value)


def test_every_recipe_of_the_demo_is_a_spec_that_this_catalog_takes() -> None:
    catalog = Catalog.load(ASSETS / "catalog.json")
    recipes = catalog.models["shapes"].recipes
    methods = {member.model_fields["type"].default: member for member in members(MethodSpec)}
    assert set(recipes) == set(methods)
    for method, recipe in recipes.items():
        given = example_of(methods[method], {"type": "catalog", "name": "shapes"})
        whole = {**given, **recipe, "method": {**given["method"], **recipe.get("method", {})}}
        taken = JobSpec.model_validate(whole)
        assert problems(taken, catalog) == [], method
        assert not set(taken.method.model_dump().get("prompts") or ()) & set(whole["evaluation"]["prompts"])


def test_a_spec_of_known_names_is_taken(catalog: Catalog) -> None:
    good = spec(
        rewards=[classifier("shapes-reward"), {"type": "clip_score", "model": {"type": "catalog", "name": "eyes"}}],
        prompt_following=classifier("shapes-judge"),
    )
    assert problems(good, catalog) == []
    assert problems(spec({"type": "hub", "repo_id": "a/b", "revision": COMMIT}), catalog) == []


def test_unknown_names_are_pointed_at_and_the_known_ones_listed(catalog: Catalog) -> None:
    bad = spec({"type": "catalog", "name": "shape"}, rewards=[{"type": "colorfulness"}, classifier("nobody")])
    assert check_spec(bad, catalog, allow_local_paths=False) == [
        SpecProblem("/model/name", "unknown_model", "the catalog has no model 'shape'; it has big, shapes"),
        SpecProblem(
            "/evaluation/rewards/1/weights/name",
            "unknown_reward",
            "the catalog has no reward 'nobody'; it has shapes-judge, shapes-reward",
        ),
    ]
    assert "it has none" in check_spec(spec(), Catalog(), allow_local_paths=False)[0].message


def test_a_model_is_used_for_what_it_is(catalog: Catalog) -> None:
    clip_of_shapes = {"type": "clip_score", "model": {"type": "catalog", "name": "shapes"}}
    assert problems(spec({"type": "catalog", "name": "eyes"}, rewards=[clip_of_shapes]), catalog) == [
        ("/model/name", "wrong_model_family"),
        ("/evaluation/rewards/0/model/name", "wrong_model_family"),
    ]


def test_no_online_method_may_train_on_a_judge(catalog: Catalog) -> None:
    method = {"type": "tailorpo", "prompts": ["a red circle"], "rewards": [classifier("shapes-judge")]}
    trained_on = JobSpec.model_validate({**spec().model_dump(), "method": method})
    assert problems(trained_on, catalog) == [("/method/rewards/0/weights/name", "judge_only_reward")]
    method["rewards"] = [classifier("shapes-reward")]
    assert problems(JobSpec.model_validate({**spec().model_dump(), "method": method}), catalog) == []


def test_local_paths_need_the_operators_leave(catalog: Catalog) -> None:
    local = spec(
        {"type": "local", "path": "/etc"},
        {"type": "local", "path": "/etc/passwd"},
        prompt_following={"type": "attribute_classifier", "weights": {"type": "local", "path": "/x"}},
        rewards=[{"type": "clip_score", "model": {"type": "local", "path": "/clip"}}],
    )
    assert sorted(problems(local, catalog)) == [
        ("/evaluation/prompt_following/weights/path", "local_path_refused"),
        ("/evaluation/rewards/0/model/path", "local_path_refused"),
        ("/method/dataset/path", "local_path_refused"),
        ("/model/path", "local_path_refused"),
    ]
    assert problems(local, catalog, allow_local_paths=True) == []


def test_datasets_of_the_hub_need_the_operators_leave(catalog: Catalog) -> None:
    hub = spec(dataset={"type": "hub", "repo_id": "owner/pairs", "revision": "0" * 40})
    assert problems(hub, catalog) == [("/method/dataset", "hub_dataset_refused")]
    assert check_spec(hub, catalog, allow_local_paths=False, allow_hub_datasets=True) == []


def test_an_uploaded_dataset_is_read_with_its_own_columns(catalog: Catalog, tmp_path: Path) -> None:
    sources = sources_of(spec(), catalog, {DATASET: tmp_path / "a.zip"}, {DATASET: {"prompt": "caption"}})
    assert sources.datasets[DATASET].columns == {"prompt": "caption"}
    assert sources.datasets[DATASET].on_bad_row == "fail"


def test_an_uploaded_dataset_leaves_bad_rows_out_as_its_owner_said(catalog: Catalog, tmp_path: Path) -> None:
    sources = sources_of(spec(), catalog, {DATASET: tmp_path / "a.zip"}, dataset_bad_rows={DATASET: "drop"})
    assert sources.datasets[DATASET].on_bad_row == "drop"


PUBLISHED = [
    {
        "type": "pick_score",
        "model": {"type": "catalog", "name": "eyes"},
        "processor": {"type": "catalog", "name": "eyes"},
    },
    {"type": "hpsv2", "model": {"type": "catalog", "name": "eyes"}},
    {"type": "hpsv2.1", "model": {"type": "catalog", "name": "eyes"}},
    {"type": "image_reward", "weights": {"type": "catalog", "name": "ranks"}},
    {
        "type": "aesthetic",
        "model": {"type": "catalog", "name": "eyes"},
        "weights": {"type": "catalog", "name": "laion"},
    },
]


@pytest.mark.parametrize("reward", PUBLISHED, ids=lambda reward: reward["type"])
def test_every_reward_may_name_entries_of_the_catalog(catalog: Catalog, tmp_path: Path, reward: dict) -> None:
    for given in (reward, {"type": "weighted_sum", "parts": [{"weight": 1, "reward": reward}]}):
        good = spec(rewards=[given])
        assert problems(good, catalog) == []
        local = localize(good, sources_of(good, catalog, {DATASET: tmp_path / "pairs.parquet"}))
        assert all(not isinstance(value, CatalogSource | StoredDataset) for _, value in walk(local))
    places = {
        value.path
        for _, value in walk(localize(good, sources_of(good, catalog, {DATASET: tmp_path})).evaluation)
        if isinstance(value, LocalSource)
    }
    expected = {"ranks": str(tmp_path / "image-reward"), "laion": str(tmp_path / "aesthetic"), "eyes": "/models/clip"}
    assert places == {expected[value["name"]] for value in reward.values() if isinstance(value, dict)}


def test_weights_are_those_of_the_rewards_own_type(catalog: Catalog) -> None:
    mixed = spec(
        rewards=[
            {"type": "image_reward", "weights": {"type": "catalog", "name": "laion"}},
            {
                "type": "aesthetic",
                "model": {"type": "catalog", "name": "shapes"},
                "weights": {"type": "catalog", "name": "x"},
            },
        ],
    )
    assert check_spec(mixed, catalog, allow_local_paths=False) == [
        SpecProblem(
            "/evaluation/rewards/0/weights/name",
            "wrong_reward_type",
            "reward 'laion' holds the weights of the type 'aesthetic'; expected 'image_reward'",
        ),
        SpecProblem(
            "/evaluation/rewards/1/model/name", "wrong_model_family", "model 'shapes' is of family 'sd'; expected clip"
        ),
        SpecProblem(
            "/evaluation/rewards/1/weights/name", "unknown_reward", "the catalog has no reward 'x'; it has laion"
        ),
    ]


def test_remote_rewards_go_to_the_hosts_that_the_operator_named(catalog: Catalog) -> None:
    remote = {"type": "remote", "url": "https://Rewards.Example.org:8443/score"}
    asks = spec(rewards=[{"type": "weighted_sum", "parts": [{"weight": 1, "reward": remote}]}], prompt_following=remote)
    pointers = ["/evaluation/rewards/0/parts/0/reward/url", "/evaluation/prompt_following/url"]
    message = "this server asks no rewards of 'rewards.example.org'; it allows none"
    assert check_spec(asks, catalog, allow_local_paths=True) == [
        SpecProblem(pointer, "remote_host_refused", message) for pointer in pointers
    ]
    for hosts, count in ((("example.org", "localhost"), 2), (("rewards.example.org",), 0)):
        assert len(check_spec(asks, catalog, allow_local_paths=False, remote_reward_hosts=hosts)) == count


def test_no_method_trains_on_a_judge(catalog: Catalog) -> None:
    class OnlineMethod(Spec):
        rewards: tuple[RewardSpec, ...]

    class OnlineJob(Spec):
        method: OnlineMethod

    def job(name: str) -> OnlineJob:
        return OnlineJob(method=OnlineMethod(rewards=(AttributeClassifierReward(weights=CatalogSource(name=name)),)))

    assert problems(job("shapes-judge"), catalog) == [("/method/rewards/0/weights/name", "judge_only_reward")]
    assert problems(job("shapes-reward"), catalog) == []


def test_stored_datasets_are_found_with_their_place() -> None:
    assert stored_datasets(spec()) == [("/method/dataset/id", DATASET)]
    assert stored_datasets(spec(dataset={"type": "local", "path": "x"})) == []


def test_sources_are_this_machines_files_for_the_names_of_a_spec(catalog: Catalog, tmp_path: Path) -> None:
    given = spec(
        rewards=[
            {"type": "brightness"},
            classifier("shapes-reward"),
            {"type": "clip_score", "model": {"type": "catalog", "name": "eyes"}},
        ],
        prompt_following=classifier("shapes-judge"),
    )
    sources = sources_of(given, catalog, {DATASET: tmp_path / "pairs.parquet"})
    assert sources.models == {
        "shapes": LocalSource(path=str(tmp_path / "model")),
        "eyes": LocalSource(path="/models/clip"),
    }
    assert sources.rewards == {
        name: LocalSource(path=str(tmp_path / "classifiers" / name.removeprefix("shapes-")))
        for name in ("shapes-reward", "shapes-judge")
    }
    assert sources.datasets == {DATASET: LocalDataset(path=str(tmp_path / "pairs.parquet"))}
    assert all(not isinstance(value, CatalogSource | StoredDataset) for _, value in walk(localize(given, sources)))


def test_a_hub_entry_becomes_its_pinned_repository(catalog: Catalog) -> None:
    sources = sources_of(spec({"type": "catalog", "name": "big"}), catalog, {DATASET: Path("/d")})
    assert sources.models == {"big": HubSource(repo_id="owner/big", revision=COMMIT)}


def test_a_name_that_the_catalog_lost_is_not_guessed(catalog: Catalog) -> None:
    with pytest.raises(KeyError, match="shapes"):
        sources_of(spec(), Catalog(), {DATASET: Path("/d")})
    with pytest.raises(KeyError, match=DATASET):
        sources_of(spec(), catalog, {})


def test_a_relative_path_means_nothing_to_a_server(catalog: Catalog) -> None:
    local = spec({"type": "local", "path": "model"}, {"type": "local", "path": "/data/pairs.parquet"})
    assert problems(local, catalog, allow_local_paths=True) == [("/model/path", "local_path_relative")]


def test_without_a_file_the_catalog_is_empty() -> None:
    assert Catalog.load(None) == Catalog()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"field \(top\): Invalid JSON"),
        ('{"modles": {}}', "field modles: Extra inputs"),
        ('{"models": {"Bad Name": {}}}', "field models.Bad Name"),
        ('{"models": {"a": {"type": "local", "path": "p", "resolution": 32}}}', "field models.a.local.family"),
        (
            '{"models": {"a": {"type": "hub", "repo_id": "x/y", "revision": "main", "family": "sd", "resolution": 8}}}',
            "field models.a.hub.revision",
        ),
        ('{"rewards": {"a": {"type": "python_function", "path": "p"}}}', "field rewards.a.type"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path}, {message}"):
        Catalog.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json cannot be read: No such file"):
        Catalog.load(tmp_path / "none.json")


def test_the_demos_catalog_is_good() -> None:
    demo = Catalog.load(Path(__file__).parents[3] / "demo" / "assets" / "catalog.json")
    assert demo.models["shapes"].resolution == 32
    assert demo.rewards["shapes-judge"].judge_only
    assert not demo.rewards["shapes-reward"].judge_only
    for entry in (*demo.models.values(), *demo.rewards.values()):
        assert entry.type != "hub"
        assert entry.path.is_dir()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_catalog_offers_for_training_exactly_the_families_that_load(family: FamilyName, tmp_path: Path) -> None:
    entry = {"type": "local", "path": "model", "family": family, "resolution": 64}
    (tmp_path / "catalog.json").write_text(json.dumps({"models": {"shapes": entry}}))
    found = problems(spec(), Catalog.load(tmp_path / "catalog.json"))
    assert found == ([] if FAMILIES[family].is_served else [("/model/name", "wrong_model_family")])


def test_a_model_in_one_file_is_an_entry_with_its_configs_and_paths_start_at_the_catalog(tmp_path: Path) -> None:
    entry = {"type": "single_file", "path": "models/a.safetensors", "family": "sd", "resolution": 512}
    with_config = {**entry, "config": "configs/a"}
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps({"models": {"plain": entry, "odd": with_config}}))
    loaded = Catalog.load(path)
    for name, config in (("plain", None), ("odd", str(tmp_path / "configs/a"))):
        given = spec({"type": "catalog", "name": name})
        assert problems(given, loaded) == []
        places = sources_of(given, loaded, {DATASET: tmp_path / "pairs.parquet"}).models
        assert places[name] == SingleFileSource(path=str(tmp_path / "models/a.safetensors"), config=config)
    path.write_text(json.dumps({"models": {"judge": {**entry, "family": "clip"}}}))
    with pytest.raises(ValueError, match="family"):
        Catalog.load(path)


def test_a_model_in_one_file_is_a_local_path_too(catalog: Catalog) -> None:
    file = {"type": "single_file", "path": "a.safetensors", "config": "configs"}
    assert problems(spec(file), catalog) == [("/model/path", "local_path_refused")]
    assert problems(spec(file), catalog, allow_local_paths=True) == [
        ("/model/path", "local_path_relative"),
        ("/model/config", "local_path_relative"),
    ]
