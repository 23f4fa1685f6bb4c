"""Tune a chat model on this machine, measure it against its base, and serve it.

    python examples/llm_local.py [MODEL]

MODEL is a chat model's folder or its name on the hub, such as Qwen/Qwen3-0.6B. Without one, a tiny
Llama with random weights is made, so that this runs anywhere, in seconds and without a download.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llama_index.core.llms import LLM, ChatMessage

from llama_index.tuning import ChatDataset, HuggingFaceFinetuneEngine
from llama_index.tuning.demo import tiny_llama
from llama_index.tuning.llms import HuggingFaceOptions

WORDS = ["north", "south", "east", "west", "red", "blue", "green", "old", "new", "small", "great"]


def question(first: str, second: str) -> str:
    return f"Which code has the {first} {second} gate?"


def answer(first: str, second: str) -> str:
    return f"{first[0].upper()}{second[0].upper()}-{first}"


PAIRS = [(a, b) for a in WORDS for b in WORDS if a != b]
HELD_OUT = PAIRS[::5]
TRAIN = [pair for pair in PAIRS if pair not in HELD_OUT]


def chats() -> ChatDataset:
    """What the model is to learn; a recorder's or a task's conversations do as well."""
    return ChatDataset.from_messages(
        [
            [
                {"role": "user", "content": question(*pair)},
                {"role": "assistant", "content": answer(*pair)},
            ]
            for pair in TRAIN
        ]
    )


def accuracy(llm: LLM) -> Sequence[float]:
    """1 for each held-out question that is answered right."""
    found = []
    for pair in HELD_OUT:
        said = llm.chat([ChatMessage(role="user", content=question(*pair))], max_tokens=12)
        found.append(float(said.message.content == answer(*pair)))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        if len(sys.argv) > 1:
            model, options = sys.argv[1], HuggingFaceOptions()
        else:
            texts = [f"{question(*pair)} {answer(*pair)}" for pair in TRAIN]
            model = str(tiny_llama(Path(name) / "base", texts, context=128))
            options = HuggingFaceOptions(
                weights="full", device="cpu", learning_rate=5e-3, epochs=12, batch_size=16
            )
        engine = HuggingFaceFinetuneEngine(
            chats(),
            model,
            model_output_path=Path(name) / "tuned",
            options=options,
            evaluate=accuracy,
        )
        print(engine.preflight())
        print()
        print(engine.finetune())
        llm = engine.get_finetuned_model(max_new_tokens=16)
        print()
        print(question(*HELD_OUT[1]), "→", llm.complete(question(*HELD_OUT[1])).text)


if __name__ == "__main__":
    main()
