"""Files of prompts: every form gives the same set and the same hash, and what cannot be a prompt is named by its row."""

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.prompt_files import MOST_TOLD, PromptsRefused, PromptsReport, limits, line_of, read_prompts
from alignment_core.spec import sha256_of_json

PROMPTS = ["a red circle", 'a sign that says "Café"', "a blue square, on grey"]
FORMS = {
    "a.txt": "\n".join(PROMPTS),
    "a.jsonl": "".join(json.dumps({"caption": prompt}) + "\n" for prompt in PROMPTS),
    "lines.jsonl": "".join(json.dumps(prompt) + "\n" for prompt in PROMPTS),
    "a.json": json.dumps(PROMPTS),
    "objects.json": json.dumps([{"id": 1, "text": prompt} for prompt in PROMPTS]),
    "a.csv": 'id,prompt\n1,a red circle\n2,"a sign that says ""Café"""\n3,"a blue square, on grey"\n',
    "a.tsv": "Prompt\tNote\n" + "".join(f"{prompt}\t\n" for prompt in PROMPTS),
}


def read(tmp_path: Path, name: str, content: str | bytes, column: str | None = None) -> tuple[list[str], PromptsReport]:
    path, kept = tmp_path / "file", list[str]()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return kept, read_prompts(path, name, kept.append, column=column)


def refusal(tmp_path: Path, name: str, content: str | bytes, column: str | None = None) -> list[tuple[int | None, str]]:
    with pytest.raises(PromptsRefused) as refused:
        read(tmp_path, name, content, column)
    return [(one.row, one.code) for one in refused.value.problems]


def as_parquet(path: Path, **columns: Sequence[object]) -> bytes:
    parquet.write_table(arrow.table(columns), path)
    return path.read_bytes()


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_prompts_and_the_same_hash(tmp_path: Path, name: str) -> None:
    kept, report = read(tmp_path, name, FORMS[name])
    assert kept == PROMPTS
    assert report.sha256 == sha256_of_json(PROMPTS), "which a run's report names its prompts by, too"
    assert report.num_prompts == report.num_rows == 3


def test_parquet_is_known_by_its_bytes_and_read_by_its_column(tmp_path: Path) -> None:
    content = as_parquet(tmp_path / "p", number=[1, 2, 3], caption=PROMPTS)
    kept, report = read(tmp_path, "no-suffix", content)
    assert (kept, report.column, report.sha256) == (PROMPTS, "caption", sha256_of_json(PROMPTS))
    assert refusal(tmp_path, "p.parquet", content, "number") == [(None, "column_unknown")]
    assert refusal(tmp_path, "p.parquet", content[:-8]) == [(None, "not_parquet")]
    assert refusal(tmp_path, "p.parquet", b"no parquet at all") == [(None, "unknown_format")]


def test_what_a_set_is_kept_as_is_read_as_the_same_set(tmp_path: Path) -> None:
    kept, report = read(tmp_path, "a.txt", FORMS["a.txt"])
    again = read(tmp_path, "prompts.jsonl", b"".join(map(line_of, kept)))
    assert (again[0], again[1].sha256) == (PROMPTS, report.sha256)


def test_empty_rows_and_repeats_are_left_out_and_told(tmp_path: Path) -> None:
    kept, report = read(tmp_path, "a.txt", "\ufeffa\r\n\r\nb\r\na\r\n  \r\n")
    assert kept == ["a", "b"]
    assert (report.num_empty, report.empty_rows) == (2, [2, 5])
    assert (report.num_duplicates, report.duplicate_rows) == (1, [4])
    assert refusal(tmp_path, "a.txt", "\n \n") == [(None, "no_prompts")]


def test_every_bad_row_is_named(tmp_path: Path) -> None:
    text = b"good\n" + b"x" * 2001 + b"\nnul\0\n\xff\n"
    assert refusal(tmp_path, "a.txt", text) == [(2, "prompt_too_long"), (3, "prompt_with_nul"), (4, "not_utf8")]
    lines = '{"prompt": "a"}\n{"prompt": 3}\n{\n{"text": "b"}\n"c"\n["d"]\n{"prompt": "\\ud800"}\n'
    found = [(2, "not_text"), (3, "not_json"), (4, "key_missing"), (6, "not_text"), (7, "prompt_not_unicode")]
    assert refusal(tmp_path, "a.jsonl", lines) == found
    assert refusal(tmp_path, "a.csv", "n,prompt\n1,a\n2\n") == [(2, "cell_missing")]
    assert refusal(tmp_path, "a.csv", 'prompt\na\n"b" c\nd\n') == [(None, "not_a_table")]
    assert len(refusal(tmp_path, "a.txt", "nul\0\n" * 1000)) == MOST_TOLD


def test_a_column_is_named_or_has_a_usual_name(tmp_path: Path) -> None:
    table = "label,words\n1,a red circle\n"
    assert refusal(tmp_path, "a.csv", table) == [(None, "column_unknown")]
    assert read(tmp_path, "a.csv", table, "words")[0] == ["a red circle"]
    assert refusal(tmp_path, "a.txt", table, "words") == [(None, "column_unknown")]
    assert refusal(tmp_path, "a.xlsx", table) == [(None, "unknown_format")]


def test_no_file_makes_a_reader_hold_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONGEST_LINE_BYTES", 100)
    text = b"a\n" + b"x" * 1000 + b"\nb\n"
    assert refusal(tmp_path, "a.txt", text) == [(2, "line_too_long")], "and the next row is row 3"
    for cells in ("prompt" + "," * 100 + "\na\n", "prompt\na\nb" + "," * 100 + "\n"):
        assert refusal(tmp_path, "a.csv", cells) == [(None, "not_a_table")]
    monkeypatch.setattr(limits, "LARGEST_JSON_BYTES", 5)
    assert refusal(tmp_path, "a.json", '["a", "b"]') == [(None, "json_too_large")]
    monkeypatch.setattr(limits, "LARGEST_COLUMN_BYTES", 1000)
    bomb = as_parquet(tmp_path / "p", prompt=[f"{number}" + "x" * 1000 for number in range(100)])
    assert refusal(tmp_path, "p.parquet", bomb) == [(None, "column_too_large")]
    monkeypatch.setattr(limits, "MOST_PROMPTS", 2)
    assert refusal(tmp_path, "a.txt", "a\nb\na\nc\nd\n") == [(None, "too_many_prompts")]


def test_no_few_bytes_stand_for_more_rows_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_ROWS", 3)
    empty = arrow.nulls(100_000, arrow.string())
    assert refusal(tmp_path, "p.parquet", as_parquet(tmp_path / "p", prompt=empty)) == [(None, "too_many_rows")]
    assert refusal(tmp_path, "a.txt", "a\n" + "\n" * 100) == [(None, "too_many_rows")]
    assert read(tmp_path, "a.txt", "a\n\na\n")[0] == ["a"]


def test_of_a_dictionary_only_what_rows_name_is_unpacked(tmp_path: Path) -> None:
    texts = arrow.array([f"prompt {number}" for number in range(100_000)])
    rows = arrow.DictionaryArray.from_arrays(arrow.array([7, None, 7, 3], arrow.int32()), texts)
    path = tmp_path / "p.parquet"
    parquet.write_table(arrow.table({"prompt": rows}), path, dictionary_pagesize_limit=1 << 30)
    kept = list[str]()
    tracemalloc.start()
    try:
        read_prompts(path, path.name, kept.append)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept == ["prompt 7", "prompt 3"]
    assert peak < 2**20, "which a long one would be for every thousand rows again"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40), max_size=20))
def test_any_texts_come_back_as_they_are_each_once(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    wanted = list(dict.fromkeys(text for text in texts if text.strip()))
    path, kept = tmp_path_factory.mktemp("prompts") / "a.jsonl", list[str]()
    path.write_bytes(b"".join(map(line_of, texts)))
    try:
        report = read_prompts(path, path.name, kept.append)
    except PromptsRefused:
        assert not wanted
    else:
        assert (kept, report.sha256) == (wanted, sha256_of_json(wanted))
