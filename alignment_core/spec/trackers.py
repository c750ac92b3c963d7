"""The tools that may hear of a run as it goes on."""

from typing import Literal

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
