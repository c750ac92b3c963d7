"""What the text encoder cuts is counted, and what it cannot tell apart is on one side of the split."""

from dataclasses import replace

from alignment_core.datasets.prompt_lengths import grouped_by_what_is_read, measure
from alignment_core.datasets.rows import Annotation
from alignment_core.datasets.splits import split_by_group
from alignment_core.datasets.values import default_group_id

WORDS = ["red", "green", "blue"]


def tokenize(prompts: object) -> list[list[int]]:
    return [[hash(word) for word in prompt.split()] for prompt in prompts]  # pyright: ignore


def rows(*prompts: str) -> list[Annotation]:
    return [
        Annotation(number, prompt, "w", "l", 1.0, None, default_group_id(prompt))
        for number, prompt in enumerate(prompts, 1)
    ]


def test_prompts_that_share_what_is_read_are_one_group_and_shorter_ones_keep_theirs():
    start = " ".join(f"w{index}" for index in range(75))
    written = rows("short", start, f"{start} a", f"{start} b c", f"x {start}", f"x {start} d")
    lengths = measure((row.prompt for row in written), tokenize, 77)
    found = grouped_by_what_is_read(written, lengths)
    assert [row.group_id == before.group_id for row, before in zip(found, written, strict=True)] == [True, True] + [
        False
    ] * 4
    assert found[1].group_id == found[2].group_id == found[3].group_id
    assert found[4].group_id == found[5].group_id != found[1].group_id
    assert len(lengths.cut) == 4
    assert "4 of 6 prompts" in lengths.warning("prompts", 4, 6).message


def test_a_group_that_the_data_names_stays():
    written = [replace(row, group_id="mine") for row in rows("w " * 90)]
    lengths = measure((row.prompt for row in written), tokenize, 77)
    assert grouped_by_what_is_read(written, lengths) == written


def test_no_held_out_prompt_reads_like_one_that_is_trained_on():
    written = rows(*(f"{f'start{index} ' * 75}{end}" for index in range(40) for end in ("a", "b")))
    assert overlap(written) != set(), "so it was"
    lengths = measure((row.prompt for row in written), tokenize, 77)
    assert overlap(grouped_by_what_is_read(written, lengths)) == set()


def overlap(written: list[Annotation]) -> set[str]:
    split = split_by_group(written, validation_fraction=0.3, seed=0)
    train, held_out = ({row.prompt.split()[0] for row in side} for side in (split.train, split.validation))
    return train & held_out
