"""Processes decode what threads decode, in the same order and to the same bits, and none outlives whoever started it."""

import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

from alignment_core.datasets import decoders
from alignment_core.datasets.decoders import in_processes, in_threads, num_processes
from alignment_core.errors import AlignmentError, DataError
from tests.alignment_core.datasets.builders import Encoders, image_bytes, rows, write_parquet
from tests.alignment_core.datasets.test_pairs import prepare
from tests.servers.process import wait_until

IMAGES = [image_bytes(number, 20 + 3 * number, 24, kind) for number in range(4) for kind in ("PNG", "JPEG", "WEBP")]


def children(pid: int | None = None) -> list[int]:
    """The processes that this one, or another, has started, zombies too."""
    number = os.getpid() if pid is None else pid
    tasks = Path(f"/proc/{number}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def a_bomb() -> bytes:
    """A PNG that announces 30000 x 30000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def test_pixels_and_frames_are_those_of_threads_in_the_same_order() -> None:
    with in_threads(2) as here, in_processes(2) as there:
        ours = [future.result() for future in [here(data, 16) for data in IMAGES]]
        theirs = [future.result() for future in [there(data, 16) for data in IMAGES]]
    for (pixels, frame), (other, other_frame) in zip(ours, theirs, strict=True):
        assert torch.equal(pixels, other)
        assert torch.equal(frame, other_frame)
        assert other.dtype == torch.float32


@pytest.mark.parametrize("data", [a_bomb(), b"no image", image_bytes(1, 900, 24), IMAGES[0][:-30]])
def test_what_threads_refuse_processes_refuse_in_the_same_words_and_go_on(data: bytes) -> None:
    with in_threads(1) as here, in_processes(1) as there:
        with pytest.raises(DataError) as ours:
            here(data, 16).result()
        with pytest.raises(DataError) as theirs:
            there(data, 16).result()
        assert (theirs.value.code, theirs.value.message) == (ours.value.code, ours.value.message)
        assert there(IMAGES[0], 16).result()[0].shape == (3, 16, 16)


def test_a_cache_that_processes_filled_is_that_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, names = write_parquet(tmp_path / "pairs.parquet", rows(9)), []
    for least in (1, 1000):
        monkeypatch.setattr(decoders, "LEAST_IMAGES", least)
        monkeypatch.setattr(decoders, "cores", lambda: 2)
        prepare(file, tmp_path / str(least), Encoders(), batch_size=6)
        names.append(sorted(path.name for path in (tmp_path / str(least)).glob("*/*.safetensors")))
    assert names[0] == names[1]
    assert len(names[0]) == 2


def test_an_error_names_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "LEAST_IMAGES", 1)
    monkeypatch.setattr(decoders, "cores", lambda: 2)
    values, before = rows(5), children()
    values[3]["rejected"] = b"no image"
    with pytest.raises(DataError, match=r"pairs.parquet, row 4, rejected: not a readable image"):
        prepare(write_parquet(tmp_path / "pairs.parquet", values), tmp_path / "cache", Encoders())
    assert children() == before


def test_nothing_is_left_when_it_ends() -> None:
    before = children()
    with in_processes(2) as decode:
        futures = [decode(data, 16) for data in IMAGES * 20]
        futures[0].result()
        assert len(children()) > len(before)
    assert children() == before
    assert all(future.done() for future in futures)  # or never began


def test_a_process_that_is_killed_ends_the_run_and_it_may_be_run_again() -> None:
    before = children()
    with in_processes(1) as decode:
        decode(IMAGES[0], 16).result()
        (pid,) = set(children()) - set(before)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(AlignmentError, match="ended with -9") as caught:
            decode(IMAGES[0], 16).result()
    assert (caught.value.code, caught.value.retryable) == ("decoder_lost", True)
    assert children() == before


HOLDS = """
import sys, time
from alignment_core.datasets.decoders import in_processes
with in_processes(1) as decode:
    decode(bytes.fromhex(sys.argv[1]), 16).result()
    print("decoding", flush=True)
    time.sleep(600)
"""


def test_processes_end_with_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", HOLDS, IMAGES[0].hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"decoding\n"
        (pid,) = children(parent.pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid), "the end of the process that decodes")


def test_a_process_that_decodes_has_no_torch() -> None:
    look = "import sys, alignment_core.datasets.decoder_process; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("images", "cores", "ranks", "expected"),
    [(999, 16, 1, 0), (1000, 16, 1, 16), (10**6, 96, 1, 16), (10**6, 1, 1, 0), (10**6, 16, 8, 2), (10**6, 8, 8, 0)],
)
def test_small_sets_and_few_cores_are_left_to_threads(images: int, cores: int, ranks: int, expected: int) -> None:
    assert num_processes(images, cores, ranks) == expected
