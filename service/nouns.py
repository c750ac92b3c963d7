"""What kinds of things are called in sentences: most of them one at a time, candidates and weights always several."""

_SEVERAL = frozenset({"candidates", "weights"})


def spoken(kind: str) -> str:
    """`prompt_set` as people say it."""
    return "data set" if kind == "dataset" else kind.replace("_", " ")


def stands(kind: str, state: str) -> str:
    """`the job is running`, `the candidates are running`."""
    return f"the {spoken(kind)} {'are' if kind in _SEVERAL else 'is'} {state}"


def none_of(kind: str, identifier: str) -> str:
    """`there is no job 'job_1'`, `there are no weights 'wts_1'`."""
    return f"there {'are' if kind in _SEVERAL else 'is'} no {spoken(kind)} {identifier!r}"


def possessive(kind: str) -> str:
    """`job's`, `candidates'`."""
    return spoken(kind) + ("'" if kind in _SEVERAL else "'s")
