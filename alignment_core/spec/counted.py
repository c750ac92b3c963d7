"""A number with what it counts, as people write it."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `1,200 rows`; `plural` where an s does not make it."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
