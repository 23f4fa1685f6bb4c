"""Verdicts of a pairwise judge in both orders, and how often the order alone turns them.

The judge's LLM is scripted here: like many a real one, it looks at the answers and then, where it
sees no difference, takes the one shown first. Give your own LLM to the evaluator instead.

    python examples/judge_label.py
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from llama_index.core.evaluation import PairwiseComparisonEvaluator
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback

from llama_index.tuning import JudgmentDataset, label_judgments
from llama_index.tuning.datasets import Judgment

PAIRS = [
    ("What is the fee?", "The fee is 5 euros a month.", "I can't say."),
    ("When do you open?", "At 8.", "We open at 8 in the morning, on Sundays at 10."),
    ("Who is the owner?", "Ada Byron.", "Ada Byron!"),
    ("Is there parking?", "Yes, behind the house.", "Yes, there is, behind it."),
]


class ScriptedJudge(CustomLLM):
    """Prefers an answer that is much longer; else the first."""

    @property
    def metadata(self) -> LLMMetadata:
        """Its name, which becomes the verdicts' source."""
        return LLMMetadata(model_name="scripted-judge")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """A verdict on the two answers in the prompt."""
        first, second = (
            re.search(rf"Start of Assistant {name}.s Answer\]\n(.*)\n", prompt)[1] for name in "AB"
        )
        better = "B" if len(second) > len(first) + 10 else "A"
        return CompletionResponse(text=f"The better one is [[{better}]]")

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """The same, in one piece."""
        text = self.complete(prompt).text
        return (piece for piece in (CompletionResponse(text=text, delta=text),))


def main() -> None:
    """Estimate, label, and look at what the order did."""
    teacher = PairwiseComparisonEvaluator(ScriptedJudge(), enforce_consensus=False)
    samples = [
        Judgment(query=query, response=first, second_response=second)
        for query, first, second in PAIRS
    ]
    plan = label_judgments(samples, teacher, both_orders=True, dry_run=True, prices=(2.5, 10.0))
    print(f"it would take: {plan.estimate}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "verdicts.jsonl"
        found = label_judgments(samples, teacher, both_orders=True, output_path=out)
        print(found.counts)
        dataset = JudgmentDataset.from_jsonl(out)
    for judgment in dataset.judgments:
        better = judgment.response if judgment.passing else judgment.second_response
        print(f"{judgment.query:<20}{better}")
    orders = dataset.agreement_of_orders()
    print(f"flip rate {orders.flip_rate:.2f} over {orders.n} pairs")


if __name__ == "__main__":
    main()
