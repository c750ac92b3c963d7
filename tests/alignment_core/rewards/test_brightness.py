import torch

from alignment_core.rewards.brightness import Brightness


def test_brightness_is_the_mean_of_all_values() -> None:
    images = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2), torch.zeros(3, 2, 2)])
    images[2, 1] = 0.6
    torch.testing.assert_close(Brightness()(images, ["", "", ""]), torch.tensor([0.0, 1.0, 0.2]))


def test_every_pixel_has_the_same_gradient() -> None:
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Brightness()(images, [""]).sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad, torch.full((1, 3, 4, 4), 1 / 48))
