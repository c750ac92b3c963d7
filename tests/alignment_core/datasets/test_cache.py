import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from alignment_core.datasets.cache import OPEN_SHARDS, STALE_SECONDS, Places, TensorCache
from alignment_core.errors import DISK_UNAVAILABLE, AlignmentError

SPACE: dict[str, str | int] = {"kind": "posterior", "model": "m", "resolution": 16}


def _value(number: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {"mean": torch.randn(4, 2, 2, generator=generator), "std": torch.rand(4, 2, 2, generator=generator)}


def _content(number: int) -> bytes:
    return f"image {number}".encode()


def _fill(folder: Path, numbers: range, shard_bytes: int = 10**6) -> TensorCache:
    cache = TensorCache(folder, SPACE, shard_bytes=shard_bytes)
    for number in numbers:
        cache.add(cache.key(_content(number)), _value(number))
        cache.flush_if_large()
    cache.flush()
    return cache


def _places(cache: TensorCache, numbers: list[int]) -> Places:
    return torch.tensor([cache.find(cache.key(_content(number))) for number in numbers])


def _missing(folder: Path, num: int) -> list[int]:
    cache = TensorCache(folder, SPACE)
    return [number for number in range(num) if cache.find(cache.key(_content(number))) is None]


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, 19), min_size=1, max_size=30))
def test_entries_come_back_bit_for_bit_in_the_order_asked(tmp_path: Path, order: list[int]) -> None:
    if not _shards(tmp_path):
        _fill(tmp_path, range(20), shard_bytes=400)
    cache = TensorCache(tmp_path, SPACE)
    places = _places(cache, order)
    read = cache.reader().read(places)
    for name in ("mean", "std"):
        assert torch.equal(read[name], torch.stack([_value(number)[name] for number in order]))
    assert len(_shards(tmp_path)) == 5


def test_the_writer_reads_what_another_process_reads(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, SPACE)
    for number in range(5):
        cache.add(cache.key(_content(number)), _value(number))
    places = _places(cache, [3, 1])
    assert torch.equal(cache.reader().read(places)["mean"], torch.stack([_value(3)["mean"], _value(1)["mean"]]))


def test_a_namespace_does_not_see_another(tmp_path: Path) -> None:
    _fill(tmp_path, range(3))
    for name, value in (("kind", "text"), ("model", "other"), ("resolution", 32)):
        other = TensorCache(tmp_path, {**SPACE, name: value})
        assert other.find(other.key(_content(0))) is None


def test_a_shard_of_another_namespace_means_nothing_here(tmp_path: Path) -> None:
    _fill(tmp_path, range(3))
    (shard,) = _shards(tmp_path)
    other_space = {**SPACE, "model": "other"}
    TensorCache(tmp_path, other_space)
    (other,) = [folder for folder in tmp_path.iterdir() if folder != shard.parent]
    shutil.copy(shard, other)
    cache = TensorCache(tmp_path, other_space)
    assert cache.find(cache.key(_content(0))) is None


def test_what_is_read_may_be_changed_without_changing_the_cache(tmp_path: Path) -> None:
    cache = _fill(tmp_path, range(3))
    places, reader = _places(cache, [0]), cache.reader()
    reader.read(places)["mean"].zero_()
    assert torch.equal(reader.read(places)["mean"][0], _value(0)["mean"])
    assert _missing(tmp_path, 3) == []


@pytest.mark.parametrize("place", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_shard_with_one_flipped_bit_is_not_trusted(tmp_path: Path, place: float) -> None:
    _fill(tmp_path, range(4))
    (shard,) = _shards(tmp_path)
    data = bytearray(shard.read_bytes())
    data[int(place * len(data))] ^= 1
    shard.write_bytes(bytes(data))
    assert _missing(tmp_path, 4) == [0, 1, 2, 3]
    assert _shards(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 4096])
def test_a_shard_of_garbage_is_not_trusted(tmp_path: Path, content: bytes) -> None:
    _fill(tmp_path, range(4))
    _shards(tmp_path)[0].write_bytes(content)
    assert _missing(tmp_path, 4) == [0, 1, 2, 3]


def test_a_shard_that_is_valid_but_not_what_its_name_says_is_not_trusted(tmp_path: Path) -> None:
    _fill(tmp_path, range(1))
    (shard,) = _shards(tmp_path)
    cache = TensorCache(tmp_path, SPACE)
    key = torch.frombuffer(bytearray(cache.key(_content(0))), dtype=torch.uint8)
    shard.write_bytes(save({"keys": key[None], "mean": torch.zeros(1, 4, 2, 2), "std": torch.zeros(1, 4, 2, 2)}))
    assert _missing(tmp_path, 1) == [0]


def test_only_the_damaged_shard_is_lost(tmp_path: Path) -> None:
    _fill(tmp_path, range(4))
    (first,) = _shards(tmp_path)
    _fill(tmp_path, range(4, 8))
    first.write_bytes(first.read_bytes()[:-1])
    assert _missing(tmp_path, 8) == [0, 1, 2, 3]


def test_a_damaged_entry_is_added_again(tmp_path: Path) -> None:
    _fill(tmp_path, range(4))
    _shards(tmp_path)[0].write_bytes(b"")
    cache = _fill(tmp_path, range(4))
    places = _places(cache, [0, 1, 2, 3])
    assert torch.equal(cache.reader().read(places)["std"], torch.stack([_value(number)["std"] for number in range(4)]))


def test_a_shard_that_goes_away_in_training_is_a_retryable_error(tmp_path: Path) -> None:
    cache = _fill(tmp_path, range(2))
    places, reader = _places(cache, [0]), cache.reader()
    _shards(tmp_path)[0].unlink()
    with pytest.raises(AlignmentError) as caught:
        reader.read(places)
    assert (caught.value.code, caught.value.category, caught.value.retryable) == ("cache_lost", "system", True)


def test_a_kill_in_mid_write_leaves_whole_shards_only(tmp_path: Path) -> None:
    """A process writes shards as fast as it can and is killed at some moment; what is there afterwards is sound."""
    code = f"""
from pathlib import Path
from tests.alignment_core.datasets.test_cache import _fill
print("go", flush=True)
_fill(Path({str(tmp_path)!r}), range(10**6), shard_bytes=2000)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    written = len(_shards(tmp_path))
    assert written > 0
    missing = _missing(tmp_path, 10_000)
    assert len(_shards(tmp_path)) == written, "a shard was damaged"
    assert missing == list(range(10_000 - len(missing), 10_000)), "there is a hole"


def test_a_write_that_ends_half_way_leaves_a_temporary_file_only(tmp_path: Path) -> None:
    """The process may write files of 1000 bytes at most, and dies of its first shard's next byte."""
    code = f"""
import resource, signal
from pathlib import Path
from tests.alignment_core.datasets.test_cache import _fill
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
_fill(Path({str(tmp_path)!r}), range(100))
"""
    killed = subprocess.run([sys.executable, "-B", "-c", code], check=False)
    assert killed.returncode == -signal.SIGXFSZ
    (left,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (left.suffix, left.stat().st_size) == (".tmp", 1000)
    assert _missing(tmp_path, 100) == list(range(100))


def test_temporary_files_are_ignored_and_removed_when_they_are_old(tmp_path: Path) -> None:
    cache = _fill(tmp_path, range(2))
    folder = _shards(tmp_path)[0].parent
    young, old = folder / "young.tmp", folder / "old.tmp"
    for path in (young, old):
        path.write_bytes(b"half a shard")
    long_ago = time.time() - STALE_SECONDS - 10
    os.utime(old, (long_ago, long_ago))
    assert _missing(tmp_path, 2) == []
    assert (young.exists(), old.exists()) == (True, False)
    assert len(_places(cache, [0, 1])) == 2


def test_two_processes_fill_one_cache_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranges = [range(0, 150), range(50, 200)]
    processes = [context.Process(target=_fill, args=(tmp_path, numbers, 2000)) for numbers in ranges]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert _missing(tmp_path, 200) == []
    cache = TensorCache(tmp_path, SPACE)
    places = _places(cache, list(range(200)))
    read = cache.reader().read(places)["mean"]
    assert torch.equal(read, torch.stack([_value(number)["mean"] for number in range(200)]))


def test_many_shards_are_read_with_few_of_them_open(tmp_path: Path) -> None:
    cache = _fill(tmp_path, range(300), shard_bytes=1)
    places, reader = _places(cache, list(range(300))), cache.reader()
    assert torch.equal(reader.read(places)["mean"][299], _value(299)["mean"])
    assert 0 < _num_maps(tmp_path) <= OPEN_SHARDS


def _num_maps(folder: Path) -> int:
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_full_disk_is_a_capacity_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(AlignmentError) as caught:
        _fill(tmp_path, range(1))
    assert (caught.value.code, caught.value.category, caught.value.retryable) == (DISK_UNAVAILABLE, "capacity", True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
