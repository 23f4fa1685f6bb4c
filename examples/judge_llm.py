"""Tune an LLM to judge: a stock evaluator goes on, with a small LLM of its own.

    python examples/judge_llm.py [MODEL]

MODEL is a chat model's folder or its name on the hub, such as Qwen/Qwen3-0.6B. Without one, a tiny
Llama with random weights is made, so that this runs anywhere, in seconds and without a download.
"""

import asyncio
import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.evaluation import BatchEvalRunner, FaithfulnessEvaluator
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate

from llama_index.tuning import (
    HuggingFaceFinetuneEngine,
    JudgeFinetuneEngine,
    JudgmentDataset,
    TunedHuggingFaceLLM,
    load_llm_judge,
)
from llama_index.tuning.demo import tiny_llama
from llama_index.tuning.judges import LLMStudent, judge_rows
from llama_index.tuning.llms import HuggingFaceOptions

# Short, so that a tiny model with random weights learns it in seconds; a real one reads the stock
# prompt: form=FaithfulnessEvaluator.
PROMPT = PromptTemplate("Is this supported?\n{query_str}\nContext: {context_str}\nYES or NO: ")


def verdicts(count: int, seed: int) -> list[dict[str, Any]]:
    """What a teacher said of an app's answers: its customers pay in pounds, never in rupees."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        right, fee = draw.random() < 0.5, draw.randint(10, 99)
        rows.append(
            {
                "query": f"What is fee {number} of list {seed}?",
                "contexts": [f"Fee {number} is {fee}, in pounds. It was paid in rupees once."],
                "response": f"It is {fee} {'pounds' if right else 'rupees'}.",
                "passing": right,
                "source": "teacher",
            }
        )
    return rows


def evaluate(judge: Any, rows: list[dict[str, Any]]) -> list[bool]:
    """Verdicts through LlamaIndex' runner."""
    results = asyncio.run(
        BatchEvalRunner({"faithful": judge}, workers=4).aevaluate_response_strs(
            queries=[row["query"] for row in rows],
            response_strs=[row["response"] for row in rows],
            contexts_list=[row["contexts"] for row in rows],
        )
    )
    return [result.passing for result in results["faithful"]]


def main() -> None:
    form = FaithfulnessEvaluator(llm=MockLLM(), eval_template=PROMPT)
    dataset = JudgmentDataset.from_records(verdicts(120, seed=0))
    conversations = judge_rows(dataset, form).chats
    first = conversations.examples[0].messages
    print(f"{first[0]['content']}→ {first[1]['content']}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) > 1:
            model, options = sys.argv[1], HuggingFaceOptions()
        else:
            texts = [message["content"] for e in conversations.examples for message in e.messages]
            model = str(tiny_llama(folder / "base", texts, context=1024))
            options = HuggingFaceOptions(
                weights="full", device="cpu", learning_rate=5e-3, max_steps=60
            )
        student = LLMStudent(
            form=form,
            engine=partial(
                HuggingFaceFinetuneEngine,
                model_id=model,
                model_output_path=folder / "llm",
                options=options,
            ),
            context_window=1024,
        )
        engine = JudgeFinetuneEngine(dataset, student=student, model_output_path=folder / "judge")
        print(engine.finetune())
        # Later, in the app: the evaluator as it was, with the LLM that was tuned for it.
        llm = TunedHuggingFaceLLM.load(folder / "llm", max_new_tokens=4)
        judge = load_llm_judge(folder / "judge", form, llm)
        others = verdicts(40, seed=1)
        same = [a == row["passing"] for a, row in zip(evaluate(judge, others), others, strict=True)]
        print(f"\n{type(judge).__name__}: {sum(same)} of {len(same)} new answers as the teacher")


if __name__ == "__main__":
    main()
