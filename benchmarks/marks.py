"""What a benchmark writes into a page of the docs, between two marks."""

from pathlib import Path


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """In place of what stands there; a page without the marks stays as it is."""
    before, found_begin, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if found_begin and found_end:
        page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
