"""What axe-core finds wrong with a page for people who do not see it, or not well (WCAG 2.2 A and AA, and good practice)."""

from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

VENDOR = Path(__file__).parent / "vendor"
GRAVE = ("serious", "critical")
RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, nodes: nodes.map(({ target, failureSummary }) => ({ target, failureSummary })) }));
}"""


@cache
def _source() -> str:
    return (VENDOR / "axe.min.js").read_text()


def grave_faults(page: Page) -> list[str]:
    """Everything serious or critical, a line each: the rule, the element, and why."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_source())  # by the debugger's door: the page's own policy lets no script in
    violations: list[dict[str, Any]] = page.evaluate(RUN)
    return [
        f"{one['impact']}: {one['id']} at {node['target']}: {node['failureSummary']}"
        for one in violations
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]
