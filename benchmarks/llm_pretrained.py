"""What tuning makes of a pretrained model: SmolLM2-135M on six tasks, with LoRA, on a CPU.

    python benchmarks/llm_pretrained.py [--tasks style sql …] [--steps 50] [--test 40]
        [--batch 8] [--seed 0] [--without-trl]

Each task: the model as it comes, the same asked with the two nearest training examples before the
question (TF-IDF), tuned by the engine, and tuned by plain TRL with the same rows, LoRA and steps.
Test items are never trained on. Prints one JSON line a task: mean score of each, the paired gain
of the engine's over each of the others with its 90 % interval, CPU seconds of both trainings and
of all together, and the largest memory before TRL began.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _llm_rows import TASKS, Task  # noqa: E402
from pydantic import PrivateAttr  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: E402

from llama_index.tuning import (  # noqa: E402
    ChatDataset,
    HuggingFaceFinetuneEngine,
    TunedHuggingFaceLLM,
)
from llama_index.tuning.demo import smollm2_folder  # noqa: E402
from llama_index.tuning.evaluate import paired_gain  # noqa: E402
from llama_index.tuning.llms import HuggingFaceOptions  # noqa: E402
from llama_index.tuning.llms.tasks.knowledge import chat_message  # noqa: E402

RATE = 1e-3


class WithExamples(TunedHuggingFaceLLM):
    """Puts the nearest training conversations before each one: what a user can do untrained."""

    _known: Any = PrivateAttr()
    _words: Any = PrivateAttr()
    _vectors: Any = PrivateAttr()

    def learn(self, dataset: ChatDataset) -> WithExamples:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._known = [[chat_message(m) for m in e.messages[-2:]] for e in dataset.examples]
        self._words = TfidfVectorizer(ngram_range=(1, 2))
        self._vectors = self._words.fit_transform([str(pair[0].content) for pair in self._known])
        return self

    def chat_batch(self, conversations: Any, **kwargs: Any) -> Any:
        asked = [str(messages[-1].content) for messages in conversations]
        nearest = (self._words.transform(asked) @ self._vectors.T).toarray().argsort(1)[:, -2:]
        shown = [[m for place in places for m in self._known[place]] for places in nearest]
        full = [[*more, *given] for more, given in zip(shown, conversations, strict=True)]
        return super().chat_batch(full, **kwargs)


class Clock(TrainerCallback):
    """CPU seconds from the first step to the last."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.seconds -= time.process_time()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.process_time()


def loaded(folder: Path) -> tuple[Any, Any]:
    """The model as it comes, and its tokenizer."""
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def plain_trl(task: Task, folder: Path, out: Path, steps: int, seed: int, clock: Clock) -> Any:
    """The same rows, LoRA and steps by TRL alone."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = loaded(folder)
    rows = [
        {"prompt": e.messages[:-1], "completion": e.messages[-1:]}
        | ({"tools": json.dumps(e.tools)} if task.tools else {})
        for e in task.dataset.examples
    ]
    arguments: dict[str, Any] = {
        "per_device_train_batch_size": task.batch_size,
        "max_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "weight_decay": 0.0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "save_strategy": "no",
        "report_to": [],
        "seed": seed,
    }
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(str(out), **arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[clock],
    )
    trainer.train()
    return trainer.model.eval(), tokenizer


def one(name: str, given: argparse.Namespace, here: Path) -> dict[str, Any]:
    """A task's line."""
    began = time.process_time()
    task = TASKS[name](given.data, given.train, given.test, random.Random(given.seed))
    task = replace(task, batch_size=given.batch or task.batch_size)
    folder = smollm2_folder(tools=task.tools)
    ours, theirs = Clock(), Clock()
    scored: list[Any] = []  # of the base, then of the tuned one

    def evaluate(llm: Any) -> Any:
        scored.append(task.evaluate(llm))
        return scored[-1]

    options = HuggingFaceOptions(
        device="cpu",
        batch_size=task.batch_size,
        max_steps=given.steps,
        learning_rate=RATE,
        seed=given.seed,
    )
    engine = HuggingFaceFinetuneEngine(
        task.dataset,
        folder,
        model_output_path=here / "tuned",
        options=options,
        evaluate=evaluate,
        accept="always",
        callbacks=[ours],
    )
    report = engine.finetune()
    gain = report.gains["score"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line: dict[str, Any] = {
        "task": name,
        "train": len(task.dataset),
        "seen": given.steps * task.batch_size,
        "test": gain.n,
        "base": gain.base,
        "tuned": gain.tuned,
        "gain": [gain.mean, gain.low, gain.high],
        "cpu_seconds": round(ours.seconds),
        "peak_gib": round(memory, 1),
    }
    for kind, places in task.kinds.items():
        line[f"tuned, {kind}"] = float(scored[-1][places].mean())
    print(json.dumps(line), file=sys.stderr, flush=True)  # the rest may be stopped
    del engine

    def beside(other: str, llm: Any) -> None:
        over = paired_gain(task.evaluate(llm), scored[-1])
        line[other] = over.base
        line[f"over_{other}"] = [over.mean, over.low, over.high]

    prompted = WithExamples(*loaded(folder), model_name="smollm2").learn(task.dataset)
    beside("nearest_examples", prompted)
    del prompted
    if not given.without_trl:
        model = plain_trl(task, folder, here / "trl", given.steps, given.seed, theirs)
        beside("trl", TunedHuggingFaceLLM(*model, model_name="smollm2"))
        line["trl_cpu_seconds"] = round(theirs.seconds)
    line["all_cpu_seconds"] = round(time.process_time() - began)
    return line


def main() -> None:
    """Tune and score each task; print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--test", type=int, default=40)
    parser.add_argument("--batch", type=int, help="rows a step; the task's own by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-trl", action="store_true")
    given = parser.parse_args()
    for name in given.tasks:
        with tempfile.TemporaryDirectory() as here:
            print(json.dumps(one(name, given, Path(here))), flush=True)


if __name__ == "__main__":
    main()
