"""An error that means a full, read-only or broken disk is told as that, whichever library met it."""

import errno
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alignment_core.commands.data import check
from alignment_core.commands.outcome import EXIT_FAILED
from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import DISK_UNAVAILABLE
from alignment_core.events import RunFailed


def test_every_way_of_saving_on_a_full_disk_says_that_it_is_full(small_disk: Path) -> None:
    content = torch.zeros(2**20)
    for save in (
        lambda: save_file({"weights": content}, small_disk / "weights.safetensors"),
        lambda: (small_disk / "state.json").write_bytes(bytes(2**21)),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
            save()
        told = disk_error_of(caught.value)
        assert told is not None, repr(caught.value)
        assert (told.code, told.category, told.retryable) == (DISK_UNAVAILABLE, "capacity", True)
        assert told.message.endswith("is full")


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EIO])
def test_the_cause_of_an_error_counts(number: int) -> None:
    error = RuntimeError("the cache could not be written")
    error.__cause__ = OSError(number, os.strerror(number))
    assert disk_error_of(error) is not None


@pytest.mark.parametrize("error", [ValueError("28"), FileNotFoundError(errno.ENOENT, "no such file"), MemoryError()])
def test_other_errors_are_not_blamed_on_a_disk(error: Exception) -> None:
    assert disk_error_of(error) is None


def test_an_archive_that_cannot_be_unpacked_for_want_of_room_is_no_fault_of_its_owner(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(small_disk / "pairs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pairs.parquet", b"PAR1" + bytes(2**21) + b"PAR1")
    assert check(small_disk / "pairs.zip", None, "fail") == EXIT_FAILED
    told = RunFailed.model_validate_json(capsys.readouterr().out)
    assert (told.code, told.category, told.retryable) == (DISK_UNAVAILABLE, "capacity", True)
