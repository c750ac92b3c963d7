"""A healthy run's log: progress is an event here, and what the libraries below warn of in vain is left unsaid."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = ("diffusers", "transformers")


def silence_imports() -> None:
    """To be called before torch is imported: no notice of image processors of transformers that nothing here uses."""
    logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # which peft imports where it is, and misses kernels


def silence_progress_bars() -> None:
    """Turn off the progress bars that diffusers and transformers draw while they load and save."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@contextmanager
def only_errors() -> Iterator[None]:
    """Let diffusers and transformers say errors alone while something is done whose outcome is checked."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
