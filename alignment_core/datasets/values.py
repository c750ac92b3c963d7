"""The values of a row as they came from a file: checked, and turned so that the preferred image is `chosen`."""

import hashlib
import math

from alignment_core.datasets.rows import TIE, Annotation
from alignment_core.errors import DataError

MAX_PROMPT_CHARACTERS = 20_000  # far beyond any text encoder: longer text is a broken or hostile file
MAX_GROUP_ID_CHARACTERS = 1000


def annotate(
    number: int,
    *,
    prompt: object,
    first: str,
    second: str,
    label: object,
    score: object = None,
    group_id: object = None,
) -> Annotation:
    """Check the values of a row and turn it so that the preferred image is `chosen`.

    `label` is the probability that `first` is preferred, 1 when None. Below 0.5 the images are swapped. `group_id` is
    a hash of the prompt when None. Raises `DataError` naming the column and what was expected.
    """
    text = checked_prompt(prompt)
    preference = _label(label)
    swapped = preference < TIE
    return Annotation(
        number=number,
        prompt=text,
        chosen=second if swapped else first,
        rejected=first if swapped else second,
        label=1 - preference if swapped else preference,
        score=_score(score),
        group_id=checked_group_id(group_id, text),
        swapped=swapped,
    )


def default_group_id(prompt: str) -> str:
    """Rows with the same prompt belong together."""
    return "prompt:" + hashlib.sha256(prompt.encode()).hexdigest()[:32]


def checked_prompt(value: object) -> str:
    """A prompt as it came, or `DataError`."""
    if not isinstance(value, str):
        raise DataError("invalid_prompt", f"prompt is {shown(value)}; expected a string, '' for none")
    if len(value) > MAX_PROMPT_CHARACTERS:
        raise DataError(
            "invalid_prompt", f"prompt has {len(value)} characters; expected at most {MAX_PROMPT_CHARACTERS}"
        )
    return _unicode(value, "prompt")


def _label(value: object) -> float:
    if value is None:
        return 1.0
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        raise DataError(
            "invalid_label",
            f"label is {shown(value)}; expected a number in [0, 1], the probability that `chosen` is preferred",
        )
    return number


def _score(value: object) -> float | None:
    if value is None:
        return None
    number = _number(value)
    if number is None or not 0 <= number < math.inf:
        raise DataError("invalid_score", f"score is {shown(value)}; expected a finite number of at least 0, or none")
    return number


def checked_group_id(value: object, prompt: str) -> str:
    """A group's name as text, that of the prompt when there is none; or `DataError`."""
    if value is None:
        return default_group_id(prompt)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError("invalid_group_id", f"group_id is {shown(value)}; expected a string or an integer")
    text = str(value)
    if not 1 <= len(text) <= MAX_GROUP_ID_CHARACTERS:
        raise DataError(
            "invalid_group_id", f"group_id has {len(text)} characters; expected 1 to {MAX_GROUP_ID_CHARACTERS}"
        )
    return _unicode(text, "group_id")


def _unicode(text: str, column: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise DataError(f"invalid_{column}", f"{column} is no Unicode text: {error}") from error
    return text


def _number(value: object) -> float | None:
    """Booleans are no numbers here: `true` as a label is a mistake about what a label is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else math.inf


def shown(value: object) -> str:
    """A value and its type, short enough for a message."""
    text = repr(value[:40] if isinstance(value, str | bytes) else value)
    return f"{text[:60]} ({type(value).__name__})"
