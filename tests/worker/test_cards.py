"""What a worker says of its machine."""

import psutil

from service.resource_classes import parse_classes
from service.store.records.catalog import CardRecord
from worker.cards import cards_here, chosen, gpus_in, too_large


def test_the_processor_is_named_with_its_memory() -> None:
    processor = next(card for card in cards_here() if card.device == "cpu")
    assert processor.memory_bytes == psutil.virtual_memory().total
    assert f"{psutil.cpu_count()} threads" in processor.name


def test_gpus_are_read_as_their_tool_writes_them() -> None:
    (card,) = gpus_in("NVIDIA H100 80GB HBM3, 81559\nNVIDIA H100 80GB HBM3, 81559\n")
    assert (card.name, card.device, card.memory_bytes) == ("NVIDIA H100 80GB HBM3", "cuda", 81_559 * 2**20)
    assert gpus_in("NVIDIA Thor, [N/A]\n") == []


def test_a_worker_tells_of_the_cards_that_its_jobs_see() -> None:
    assert chosen("1, 3") == ["--id=1,3"]
    assert chosen("GPU-8f3c") == ["--id=GPU-8f3c"]
    assert chosen(None) == chosen("MIG-8f3c") == []


def test_a_class_that_the_cards_cannot_hold_is_known() -> None:
    classes = parse_classes("small:1@24GiB,big:1@80GiB,huge:8@140GiB,any:16")
    processor = CardRecord(name="processor", device="cpu", memory_bytes=512 * 2**30)
    h100 = CardRecord(name="NVIDIA H100 80GB HBM3", device="cuda", memory_bytes=81_559 * 2**20)
    assert [one.name for one in too_large(classes, [h100, processor])] == ["huge"]
    assert too_large(classes, [processor]) == ()
