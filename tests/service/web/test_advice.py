"""There is advice for every warning, and docs/guards.md gives the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from service.web.advice import ADVICE

ROOT = Path(__file__).parents[3]
HANDED_ON = {
    "alignment_core/training/watch.py": {"Finding", "_say"},
    "alignment_core/tracking/relay.py": {"_warn"},
}
"""What else a file calls with the code of a warning first, and makes the warning of."""

NOT_BY_NAME = {
    "alignment_core/training/watch.py": {"code", "finding.guard"},  # handed on, as above
    "alignment_core/tracking/relay.py": {"code"},
    "service/store/leases.py": {"error.code"},  # of a job that is paused; its error has a hint of its own
}
FILES = [path for part in ("alignment_core", "worker", "service/store") for path in (ROOT / part).rglob("*.py")]


def codes_in(path: Path) -> Iterator[ast.expr]:
    """What each warning that is made in a file has for its code."""
    text = path.read_text()
    makers = {"WarningRaised", *HANDED_ON.get(str(path.relative_to(ROOT)), ())}
    for call in ast.walk(ast.parse(text)) if "WarningRaised(" in text else ():
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in makers:
            named = [one.value for one in call.keywords if one.arg == "code"]
            yield (named or call.args)[0]


def told() -> dict[str, str]:
    section = (ROOT / "docs" / "guards.md").read_text().split("\n## What to do\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))


def test_the_page_gives_the_advice_that_a_jobs_page_gives() -> None:
    assert list(told().items()) == list(ADVICE.items())


def test_every_warning_has_advice_and_no_advice_is_of_a_warning_that_is_gone() -> None:
    raised: set[str] = set()
    for path in FILES:
        where = str(path.relative_to(ROOT))
        for code in codes_in(path):
            match code:
                case ast.Constant(value=str(name)):
                    raised.add(name)
                case _:
                    assert ast.unparse(code) in NOT_BY_NAME.get(where, ()), f"{where}:{code.lineno}: which codes?"
    assert raised == set(ADVICE)
