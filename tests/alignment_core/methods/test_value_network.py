"""DPOK's value network: it learns what the state and the prompt tell of the reward, and its state is all that it has."""

import torch
from torch import Tensor

from alignment_core.methods.value_network import States, ValueNetwork

NUM_TIMESTEPS = 100


def network(learning_rate: float = 1e-2) -> ValueNetwork:
    return ValueNetwork(
        width=16, learning_rate=learning_rate, batch_size=32, num_batches=4, num_timesteps=NUM_TIMESTEPS, seed=3
    )


def states(num: int, seed: int) -> States:
    draw = torch.Generator().manual_seed(seed)
    return States(
        torch.randn(num, 4, 8, 8, generator=draw),
        torch.randint(0, NUM_TIMESTEPS, (num,), generator=draw),
        {"encoder_hidden_states": torch.randn(num, 5, 6, generator=draw)},
    )


def reward_of(seen: States) -> Tensor:
    """What the latent, the prompt and the time each tell a part of."""
    text = seen.conditioning["encoder_hidden_states"].mean(dim=(1, 2))
    return seen.x_t.mean(dim=(1, 2, 3)) + 3 * text + seen.timesteps / NUM_TIMESTEPS


def error(value: ValueNetwork, state: dict[str, Tensor], seen: States) -> float:
    return float((value.values(state, seen) - reward_of(seen)).square().mean())


def test_it_learns_what_is_to_be_expected_of_states_that_it_never_saw() -> None:
    value, unseen = network(), states(256, seed=99)
    state = begun = value.begin(unseen)
    for number in range(150):
        parts = [states(32, seed=100 + 4 * number + part) for part in range(4)]
        state = value.fit(state, [(part, reward_of(part)) for part in parts])
    assert error(value, state, unseen) < 0.2 * float(reward_of(unseen).var())
    assert error(value, begun, unseen) > float(reward_of(unseen).var())


def test_several_minibatches_are_one_step_on_their_mean() -> None:
    value, seen = network(), states(8, seed=1)
    parts = [
        States(
            seen.x_t[rows],
            seen.timesteps[rows],
            {"encoder_hidden_states": seen.conditioning["encoder_hidden_states"][rows]},
        )
        for rows in (slice(0, 2), slice(2, 8))
    ]
    begun = value.begin(seen)
    whole = value.fit(begun, [(seen, reward_of(seen))])
    split = value.fit(begun, [(part, reward_of(part)) for part in parts])
    assert whole.keys() == split.keys()
    moments = [
        name for name in whole if ".exp_avg" in name
    ]  # Adam divides by its own square: rounding shows in the weights
    assert all(torch.allclose(whole[name], split[name], rtol=1e-3, atol=1e-7) for name in moments)
    assert int(split["value.adam.step.text.weight"]) == 1


def test_the_first_weights_follow_from_the_seed_and_leave_other_draws_alone() -> None:
    before = torch.get_rng_state()
    one, same = network().begin(states(1, seed=0)), network().begin(states(1, seed=5))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_moves_every_weight_by_no_more_than_the_learning_rate() -> None:
    value, seen = network(learning_rate=1e-3), states(16, seed=2)
    begun = value.begin(seen)
    moved = value.fit(begun, [(seen, reward_of(seen))])
    largest = max(float((moved[name] - begun[name]).abs().max()) for name in begun)
    assert 0.9e-3 < largest <= 1.001e-3  # Adam's first step is the learning rate, in every weight with a gradient
