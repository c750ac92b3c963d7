"""A text that would become elements and run a script wherever it were taken for HTML."""

from playwright.sync_api import Page


def marked(what: str) -> str:
    """`what`, as somebody writes it who tries their luck."""
    return f"{what}<img class=smuggled src=/smuggled onerror=smuggled=1><script>smuggled=1</script>\"'><b class=smuggled>&lt;"


def smuggled(page: Page) -> int:
    """How many elements came of such texts, and whether a script of theirs ran."""
    return page.evaluate("document.querySelectorAll('.smuggled').length + ('smuggled' in window ? 1 : 0)")
