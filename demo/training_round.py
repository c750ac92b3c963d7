"""One round of training a denoiser: AdamW, one cosine cycle, and the average of the weights kept at its end.

Attributes are learnt in jumps: colour first, position and shape much later. So training comes in
rounds, each a warm restart with a fresh cosine schedule, and the gates say when to stop.
"""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

EMA_DECAY = 0.998


def train_round(
    parameters: Sequence[nn.Parameter],
    loss_of_batch: Callable[[torch.Generator], Tensor],
    num_steps: int,
    seed: int,
    log: Callable[[str], None],
    lr: float = 2e-3,
) -> None:
    """Trains in place on batches that `loss_of_batch` draws and leaves the exponential moving average there."""
    generator = torch.Generator().manual_seed(seed)
    ema = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=num_steps, pct_start=0.05, cycle_momentum=False
    )
    started, running_loss = time.monotonic(), 0.0
    for step in range(1, num_steps + 1):
        loss = loss_of_batch(generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            # A fixed decay would leave the initial weights in the average of a short run.
            decay = min(EMA_DECAY, (1 + step) / (10 + step))
            for average, parameter in zip(ema, parameters, strict=True):
                average.lerp_(parameter, 1 - decay)
        running_loss += loss.item()
        if step % 100 == 0 or step == num_steps:
            log(
                f"denoiser step {step}/{num_steps} "
                f"mean loss {running_loss / step:.4f} {time.monotonic() - started:.0f} s"
            )
    with torch.no_grad():
        for average, parameter in zip(ema, parameters, strict=True):
            parameter.copy_(average)
