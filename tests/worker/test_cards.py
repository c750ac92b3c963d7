"""What a worker says of its machine."""

import psutil

from worker.cards import cards_here, gpus_in


def test_the_processor_is_named_with_its_memory() -> None:
    processor = next(card for card in cards_here() if card.device == "cpu")
    assert processor.memory_bytes == psutil.virtual_memory().total
    assert f"{psutil.cpu_count()} threads" in processor.name


def test_gpus_are_read_as_their_tool_writes_them() -> None:
    (card,) = gpus_in("NVIDIA H100 80GB HBM3, 81559\nNVIDIA H100 80GB HBM3, 81559\n")
    assert (card.name, card.device, card.memory_bytes) == ("NVIDIA H100 80GB HBM3", "cuda", 81_559 * 2**20)
    assert gpus_in("NVIDIA Thor, [N/A]\n") == []
