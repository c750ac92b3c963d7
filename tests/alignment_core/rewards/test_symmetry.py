import torch

from alignment_core.rewards.symmetry import Symmetry


def test_a_mirrored_image_scores_zero_and_opposite_halves_minus_one() -> None:
    half = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    mirrored = torch.cat([half, half.flip(-1)], dim=-1)
    opposite = torch.cat([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)], dim=-1)
    torch.testing.assert_close(Symmetry()(torch.stack([mirrored, opposite]), ["", ""]), torch.tensor([0.0, -1.0]))


def test_the_score_is_minus_the_mean_squared_difference_from_the_mirror_image() -> None:
    image = torch.tensor([[0.1, 0.2, 0.7]]).expand(1, 3, 1, 3)  # differences -0.6, 0, 0.6
    torch.testing.assert_close(Symmetry()(image, [""]), torch.tensor([-(0.36 + 0 + 0.36) / 3]))


def test_up_and_down_may_differ() -> None:
    rows = torch.linspace(0, 1, 8).view(1, 1, 8, 1).expand(1, 3, 8, 8)
    assert Symmetry()(rows, [""]) == 0


def test_climbing_the_gradient_makes_the_image_symmetric() -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(Symmetry()(image, [""]).sum(), image)
    # -mean(d^2) with d = x - flip x has the gradient -4 d / n, and this step takes d to zero.
    stepped = image.detach() + gradient * image.numel() / 8
    torch.testing.assert_close(stepped, stepped.flip(-1))
