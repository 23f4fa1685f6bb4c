"""What libraries do unasked: bars, and reports over the network."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """None of them in the block; afterwards as it was."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    datasets = sys.modules.get("datasets")
    also = datasets is not None and not datasets.are_progress_bars_disabled()
    if datasets is not None and also:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
        if datasets is not None and also:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def no_telemetry() -> Iterator[None]:
    """TRL's trainers report each use to their hub; ours do not."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before
