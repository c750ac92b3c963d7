import re
from concurrent.futures import ThreadPoolExecutor

from service.store import ids
from service.store.ids import new_id


def test_ids_are_prefixed_ulids_in_lower_case() -> None:
    assert re.fullmatch(r"job_[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}", new_id("job"))


def test_the_first_ten_characters_are_the_milliseconds(monkeypatch) -> None:
    # the example of the ULID specification: 01ARYZ6S41 is 1469918176385 ms
    monkeypatch.setattr(ids, "_clock", ids._Clock())
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1469918176385 * 1_000_000)
    assert new_id("evt").startswith("evt_01aryz6s41")


def test_ids_of_one_process_sort_in_the_order_they_were_made() -> None:
    made = [new_id("evt") for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_stay_in_order_when_the_clock_goes_back(monkeypatch) -> None:
    clock = ids._Clock()
    times = iter([2_000_000_000_000_000, 1_000_000_000_000_000, 1_500_000_000_000_000])
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(times))
    first, second, third = clock.next(), clock.next(), clock.next()
    assert first < second < third


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_id("job"), range(8_000)))
    assert len(set(made)) == len(made)
