"""A data set that the real check has looked at, with whatever is wrong with its rows."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from alignment_core.datasets.preflight import check_and_show
from service.store import datasets, keys
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.uploads import Browsing
from tests.service.api.world import Api

FILENAME = "pairs.parquet"


def png(number: int, size: tuple[int, int] = (320, 240)) -> bytes:
    """A picture of one colour; another number is another picture."""
    file = io.BytesIO()
    Image.new("RGB", size, (number % 256, 37 * number % 256, 200)).save(file, "PNG")
    return file.getvalue()


def sound(num: int, prompt: str = "prompt") -> list[dict[str, Any]]:
    """Rows with which nothing is wrong."""
    return [
        {"prompt": f"{prompt} {row}", "chosen": png(2 * row), "rejected": png(2 * row + 1)} for row in range(1, num + 1)
    ]


def flawed(prompt: str = "prompt") -> list[dict[str, Any]]:
    """Eight rows: 3 is a tie, 5 repeats 4, of 6 the rejected image is none, 7 contradicts 2."""
    found = sound(8, prompt)
    found[2]["label"] = 0.5
    found[4] = dict(found[3])
    found[5]["rejected"] = b"no picture"
    found[6] = {"prompt": found[1]["prompt"], "chosen": found[1]["rejected"], "rejected": found[1]["chosen"]}
    return found


def browsable(
    api: Api, rows: list[dict[str, Any]] | None = None, project_id: str = DEFAULT_PROJECT_ID, **more: Any
) -> str:
    """Id of a data set of these rows, checked as a worker checks it: rows with an error are left out."""
    store, objects = api.parts.store, api.parts.objects
    made = datasets.create(store, project_id=project_id, filename=FILENAME, on_bad_row="drop", **more)
    with TemporaryDirectory() as folder:
        path, browsing = Path(folder) / f"{made.id}.parquet", Path(folder) / "browsing"
        written = flawed() if rows is None else rows
        columns = dict.fromkeys(name for row in written for name in row)
        pq.write_table(pa.table({name: [row.get(name) for row in written] for name in columns}), path)
        key = keys.dataset_key(project_id, made.id, ".parquet")
        objects.put_file(key, path)
        datasets.uploaded(store, made.id, size_bytes=path.stat().st_size, sha256="0" * 64, object_key=key)
        claim = datasets.claim(store, made.id, "worker", 60)
        assert claim is not None
        report = check_and_show(path, None, "drop", browsing, FILENAME)
        shown = keys.browsing_key(project_id, made.id, claim.attempt)
        objects.put_file(shown, browsing)
        stored = Browsing(object_key=shown, size_bytes=browsing.stat().st_size)
    datasets.set_report(store, made.id, claim.attempt, report, stored)
    return made.id
