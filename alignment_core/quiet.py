"""Progress is an event here: the bars of the libraries below would only break the log."""

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


def silence_progress_bars() -> None:
    """Turn off the progress bars that diffusers and transformers draw while they load and save."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
