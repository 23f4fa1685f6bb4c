"""Preflight's estimate of memory beside what a run took, over models and settings.

    python benchmarks/llm_memory.py [--shapes 0 1 2 …]

Each shape is two training steps of its own process on a CPU; its highest memory (resident) is
compared with what `preflight()` said. Prints JSON, one object per shape.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from llama_index.tuning import ChatDataset, HuggingFaceFinetuneEngine  # noqa: E402
from llama_index.tuning.datasets.records import ChatExample  # noqa: E402
from llama_index.tuning.demo import smollm2_folder  # noqa: E402
from llama_index.tuning.llms import HuggingFaceOptions  # noqa: E402

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "the",
    "other",
    "cat",
    "sit",
    "on",
    "another",
    "mat",
    "by",
    "the",
    "old",
    "door",
]

WIDTHS = {"wide": (1024, 6), "thin": (256, 4)}
"""Hidden size and layers of random models with SmolLM2's tokens."""

# (model, batch, words of an answer, further options)
SHAPES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("smollm2", 1, 150, {}),
    ("smollm2", 4, 150, {}),
    ("smollm2", 2, 600, {}),
    ("smollm2", 8, 350, {}),
    ("wide", 4, 150, {}),
    ("wide", 4, 600, {}),
    ("thin", 4, 150, {}),
    ("thin", 4, 600, {}),
    ("smollm2", 4, 150, {"gradient_checkpointing": True}),
    ("smollm2", 2, 900, {"gradient_checkpointing": True}),
    ("smollm2", 2, 150, {"weights": "full"}),
    ("smollm2", 8, 60, {"weights": "full"}),
    ("wide", 8, 60, {"weights": "full"}),
    ("smollm2", 2, 150, {"method": "dpo"}),
    ("smollm2", 4, 300, {"method": "dpo"}),
    ("smollm2", 1, 150, {"method": "dpo", "weights": "full"}),
]


def model_folder(name: str, here: Path) -> Path:
    """SmolLM2, or a random model with its tokenizer."""
    if name == "smollm2":
        return smollm2_folder()
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    hidden, layers = WIDTHS[name]
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=8,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(here / name)
    tokenizer.save_pretrained(here / name)
    return here / name


def chats(words: int, preferences: bool) -> ChatDataset:
    """Forty conversations of equal length."""
    answers = [" ".join(WORDS[(n + k) % len(WORDS)] for k in range(words)) for n in range(41)]
    asked = [{"role": "user", "content": f"Tell me story {n}."} for n in range(40)]
    if preferences:
        said = [[{"role": "assistant", "content": text}] for text in answers]
        return ChatDataset(
            [ChatExample([asked[n], *said[n]], rejected=said[n + 1][0]) for n in range(40)]
        )
    return ChatDataset.from_messages(
        [[asked[n], {"role": "assistant", "content": answers[n]}] for n in range(40)]
    )


def run(shape: tuple[str, int, int, dict[str, Any]], told: Any) -> None:
    """Two steps, and what they took."""
    name, batch, words, extra = shape
    options = HuggingFaceOptions(
        device="cpu", max_steps=2, batch_size=batch, held_out=0.05, **extra
    )
    data = chats(words, extra.get("method") == "dpo")
    with tempfile.TemporaryDirectory() as here:
        engine = HuggingFaceFinetuneEngine(
            data,
            model_folder(name, Path(here)),
            model_output_path=Path(here) / "out",
            options=options,
        )
        plan = engine.preflight()
        engine.finetune()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    told.put({"said": round(plan.memory_gib, 2), "took": round(peak, 2), "longest": plan.longest})


def main() -> None:
    """Every shape in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, nargs="+", default=list(range(len(SHAPES))))
    spawn = multiprocessing.get_context("spawn")
    for number in parser.parse_args().shapes:
        told = spawn.Queue()
        process = spawn.Process(target=run, args=(SHAPES[number], told))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"shape {number} failed")
        found = told.get()
        name, batch, _, extra = SHAPES[number]
        row = {
            "model": name,
            "batch": batch,
            **extra,
            **found,
            "ratio": round(found["said"] / found["took"], 2),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
