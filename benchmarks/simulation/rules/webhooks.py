"""What may happen next with webhooks."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from benchmarks.simulation import hooks
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.rules.choices import Machine, deaths, has, knows, which


@rule(death=deaths)
def add_webhook(machine: Machine, death: Death | None) -> None:
    hooks.add(machine.world, death)
    machine.took("webhook")


@has("webhooks")
@rule(index=which, what=st.sampled_from(["on", "on", "off", "ping", "delete"]), death=deaths)
def change_webhook(machine: Machine, index: int, what: hooks.Change, death: Death | None) -> None:
    hooks.change(machine.world, index, what, death)
    machine.took(f"webhook: {what}")


@has("deliveries")
@rule(index=which, death=deaths)
def redeliver(machine: Machine, index: int, death: Death | None) -> None:
    hooks.redeliver(machine.world, index, death)
    machine.took("redeliver")


@has("webhooks")
@rule(death=deaths)
def send(machine: Machine, death: Death | None) -> None:
    hooks.send(machine.world, death)
    machine.took("send")


@knows("senders")
@rule(index=which, how=st.sampled_from(["good", "bad", "bad", "gone"]), death=deaths)
def learn_answer(machine: Machine, index: int, how: hooks.How, death: Death | None) -> None:
    hooks.answer(machine.world, index, how, death)
    machine.took(f"a webhook answers: {how}")


@has("webhooks")
@rule(answers=st.lists(st.sampled_from(["good", "bad"]), min_size=1, max_size=3))
def deliver(machine: Machine, answers: list[hooks.How]) -> None:
    """What mostly happens: what is due is sent, and answered at once."""
    for how in answers:
        num = len(machine.world.senders)
        hooks.send(machine.world, None)
        if len(machine.world.senders) > num:
            hooks.answer(machine.world, 0, how, None)
    machine.took("deliveries")


RULES = (add_webhook, change_webhook, redeliver, send, learn_answer, deliver)
