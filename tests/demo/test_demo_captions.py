import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.captions import all_captions, held_out_captions, parse_caption, train_captions

captions = st.sampled_from(all_captions())


def test_the_grammar_has_360_captions_each_with_its_own_words():
    assert len({caption.text for caption in all_captions()}) == 360


@given(captions)
def test_parsing_the_words_of_a_caption_gives_the_caption(caption):
    assert parse_caption(caption.text) == caption


@pytest.mark.parametrize("text", ["", "a red dog", "red circle", "a red circle on the left "])
def test_other_sentences_are_refused(text):
    with pytest.raises(ValueError, match="not a caption"):
        parse_caption(text)


def test_the_split_is_whole_and_without_overlap():
    train, held_out = set(train_captions()), set(held_out_captions())
    assert train | held_out == set(all_captions())
    assert not train & held_out
    assert 0.10 < len(held_out) / 360 < 0.20


def test_the_split_does_not_depend_on_the_run():
    assert parse_caption("a red circle").held_out is False
    assert [caption.text for caption in held_out_captions()[:2]] == [
        "a small red circle",
        "a big red circle on the left",
    ]


@pytest.mark.parametrize("attribute", ["color", "shape", "position", "size"])
def test_training_and_evaluation_see_every_value(attribute):
    values = {getattr(caption, attribute) for caption in all_captions()}
    for part in (train_captions(), held_out_captions()):
        assert {getattr(caption, attribute) for caption in part} == values
