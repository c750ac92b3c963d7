"""Scores are computed once: what is remembered is what computing gives, to the bit, whoever wrote it and however many do."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from alignment_core.families.file_hashes import FileHashes
from alignment_core.load.score_names import score_name
from alignment_core.protocols import RewardModel
from alignment_core.rewards import score_files
from alignment_core.rewards.remembered import BatchHashes, RememberedReward
from alignment_core.rewards.score_files import RECORD, ScoreFiles
from alignment_core.shapes import Images, PerExample
from alignment_core.spec import BrightnessReward, ClipScoreReward, LocalSource, RemoteReward, WeightedSumReward
from alignment_core.spec.rewards import WeightedPart

CPU = torch.device("cpu")
KEYS = [bytes([number]) * 32 for number in range(10)]


class Counted:
    """A reward whose last bits depend on the batch, and which counts how often it is asked."""

    differentiable = False

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        self.num_calls += 1
        lengths = torch.tensor([float(len(prompt)) for prompt in prompts])
        return images.mean(dim=(1, 2, 3)) * (1 / 3 + len(images) * 1e-7) + lengths


def remembering(folder: Path) -> tuple[RememberedReward, Counted]:
    counted = Counted()
    assert isinstance(counted, RewardModel)
    return RememberedReward(counted, ScoreFiles(folder), BatchHashes()), counted


def images(num: int, seed: int = 0) -> Images:
    return torch.rand(num, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_a_batch_is_scored_once_and_the_same_bits_come_back(tmp_path: Path) -> None:
    first, counted = remembering(tmp_path / "a")
    batch, prompts = images(3), ["a", "bb", "ccc"]
    expected = counted(batch, prompts)
    assert torch.equal(first(batch, prompts), expected)
    assert torch.equal(first(batch.clone(), prompts), expected)
    assert counted.num_calls == 2
    again, asked = remembering(tmp_path / "a")
    assert torch.equal(again(batch, prompts), expected)
    assert asked.num_calls == 0, "another process finds it"


def test_what_might_have_another_last_bit_is_computed(tmp_path: Path) -> None:
    batch, prompts = images(3), ["a", "bb", "ccc"]
    reward, _ = remembering(tmp_path / "a")
    reward(batch, prompts)
    for other, asked in ((batch[:2], prompts[:2]), (images(3, seed=1), prompts), (batch, ["a", "bb", "ddd"])):
        again, counted = remembering(tmp_path / "a")
        assert torch.equal(again(other, asked), Counted()(other, asked))
        assert counted.num_calls == 1
    swapped, counted = remembering(tmp_path / "a")
    swapped(batch.flip(0), prompts[::-1])
    assert counted.num_calls == 1


def test_half_a_record_and_an_altered_one_are_no_records(tmp_path: Path) -> None:
    files = ScoreFiles(tmp_path / "a")
    files.add({KEYS[0]: 0.5, KEYS[1]: 1.5, KEYS[2]: 2.5})
    (path,) = (tmp_path / "a").iterdir()
    content = bytearray(path.read_bytes())
    content[RECORD.size + 33] ^= 1
    path.write_bytes(content[: 2 * RECORD.size + 20])
    again = ScoreFiles(tmp_path / "a")
    assert [again.find(key) for key in KEYS[:3]] == [0.5, None, None]


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from alignment_core.rewards.score_files import ScoreFiles
files, number = ScoreFiles(Path(sys.argv[1])), int(sys.argv[2])
for row in range(500):
    files.add({bytes([number, row % 256, row // 256]) + bytes(29): number + row / 1024})
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "a"), str(number)]) for number in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    files = ScoreFiles(tmp_path / "a")
    for number in range(3):
        for row in range(500):
            assert files.find(bytes([number, row % 256, row // 256]) + bytes(29)) == number + row / 1024


def test_many_files_become_one_and_what_was_used_least_lately_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_files, "MOST_FILES", 3)
    for key in KEYS[:3]:
        ScoreFiles(tmp_path / "a").add({key: 0.25})
    old = [path for path in (tmp_path / "a").iterdir() if os.utime(path, (0, 0)) is None]
    merged = ScoreFiles(tmp_path / "a")
    assert [merged.find(key) for key in KEYS[:3]] == [0.25] * 3
    assert len(left := list((tmp_path / "a").iterdir())) == 1
    assert left[0] not in old

    ScoreFiles(tmp_path / "b").add({KEYS[4]: 4.0})
    (tmp_path / "b" / "killed.tmp").write_bytes(b"half")
    for path in (tmp_path / "b").iterdir():
        os.utime(path, (0, 0))
    monkeypatch.setattr(score_files, "LARGEST_BYTES", 3 * RECORD.size)
    assert ScoreFiles(tmp_path / "a").find(KEYS[0]) == 0.25
    assert list((tmp_path / "b").iterdir()) == []


def test_without_a_disk_scores_are_computed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where the folder would be")
    reward, counted = remembering(tmp_path / "a")
    reward(images(2), ["a", "b"])
    reward(images(2), ["a", "b"])
    assert counted.num_calls == 1, "within a process it is remembered anyhow"


def test_a_rewards_name_is_what_decides_its_scores(tmp_path: Path) -> None:
    hashes, folder = FileHashes(), tmp_path / "clip"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")

    def name_of(reward: object, role: str = "score") -> str | None:
        return score_name(reward, role, CPU, hashes)  # pyright: ignore[reportArgumentType]

    clip = ClipScoreReward(model=LocalSource(path=str(folder)))
    first = name_of(clip)
    assert first == name_of(clip.model_copy(update={"name": "mine"})), "what it is called changes no score"
    assert first != name_of(clip, "prompt_following")
    assert first != name_of(BrightnessReward())
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert name_of(ClipScoreReward(model=LocalSource(path=str(moved)))) == first, "nor does where it lies"
    (moved / "model.safetensors").write_bytes(b"other weights")
    assert name_of(ClipScoreReward(model=LocalSource(path=str(moved)))) != first


def test_a_server_is_remembered_only_under_the_version_that_it_is_given(tmp_path: Path) -> None:
    remote = RemoteReward(url="https://rewards.example.org/score")
    summed = WeightedSumReward(parts=(WeightedPart(weight=0.5, reward=remote),))
    assert score_name(remote, "score", CPU, FileHashes()) is None
    assert score_name(summed, "score", CPU, FileHashes()) is None
    versions = [remote.model_copy(update={"version": version}) for version in ("1", "2")]
    names = {score_name(one, "score", CPU, FileHashes()) for one in versions}
    assert len(names) == 2
    assert None not in names
