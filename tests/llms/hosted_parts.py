"""What the tests of hosted tuning share: conversations, a fast clock, an engine on a server."""

import time

from llama_index.tuning import ChatDataset, OpenAIFinetuneEngine
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.llms.hosted.calls import Clock

MODEL = "gpt-4.1-mini-2025-04-14"


def scaled(factor=2000.0):
    """A clock on which `factor` seconds pass in one."""
    return Clock(
        now=lambda: time.monotonic() * factor, sleep=lambda seconds: time.sleep(seconds / factor)
    )


def chats(n=12, **fields):
    return ChatDataset(
        [
            ChatExample(
                [
                    {"role": "user", "content": f"How high is fee {number}?"},
                    {"role": "assistant", "content": f"{number} euros."},
                ],
                **fields,
            )
            for number in range(n)
        ]
    )


def preferences(n=12):
    return chats(n, rejected={"role": "assistant", "content": "No idea."})


def train_file(folder, n=12):
    path = folder / "train.jsonl"
    chats(n).save_jsonl(path, min_examples=1)
    return path


def engine_on(server, data, *more, model=MODEL, **options):
    given = {"client": server.client(), "clock": scaled(), "poll_interval": 10.0, **options}
    return OpenAIFinetuneEngine(model, data, *more, **given)
