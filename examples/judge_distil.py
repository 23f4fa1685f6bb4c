"""Distil a FaithfulnessEvaluator into a judge that needs no LLM: no key, no network.

python examples/judge_distil.py
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from typing import Any

from llama_index.core.evaluation import BatchEvalRunner, FaithfulnessEvaluator
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback

from llama_index.tuning import JudgeFinetuneEngine, JudgmentDataset, TunedJudge

PLANS = ["basic", "family", "student", "business", "travel", "senior"]
SYLLABLES = ["ka", "ri", "mo", "len", "tor", "sha", "vi", "bel", "dun", "no", "zy", "gar"]


class ScriptedLLM(CustomLLM):
    """Stands in for the large model: says YES where the price of the answer is in the context."""

    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.calls += 1
        answer = prompt.rsplit("Information:", 1)[-1].split("Context:")[0]
        context = prompt.rsplit("Context:", 1)[-1]
        prices = [word for word in answer.replace(".", "").split() if word.isdigit()]
        return CompletionResponse(text="YES" if prices and prices[0] in context else "NO")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError("the evaluator does not stream")


def answers(count: int, seed: int) -> list[dict[str, Any]]:
    """An app's answers: every other one gets the price wrong, and names some people as well.

    Which of them the context knows is chance, so overlap alone cannot tell right from wrong.
    """
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        plan, price = draw.choice(PLANS), draw.randint(100, 499)
        said = price if draw.random() < 0.5 else draw.randint(500, 999)
        names = ["".join(draw.sample(SYLLABLES, 3)).title() for _ in range(6)]
        sentence = draw.choice(["The {} plan costs {} euros.", "For the {} plan you pay {} euros."])
        asked = draw.sample(names, draw.randint(1, 5))
        rows.append(
            {
                "query": f"What does the {plan} plan of offer {seed}/{number} cost?",
                "contexts": [
                    f"Offer {seed}/{number}: {plan}, price in EUR: {price}. "
                    f"Staff: {', '.join(names[:3])}."
                ],
                "response": f"{sentence.format(plan, said)} Ask {', '.join(asked)}.",
            }
        )
    return rows


def evaluate(evaluator: Any, rows: list[dict[str, Any]]) -> list[Any]:
    """All answers through LlamaIndex' runner."""
    found = asyncio.run(
        BatchEvalRunner({"faithful": evaluator}, workers=4).aevaluate_response_strs(
            queries=[row["query"] for row in rows],
            response_strs=[row["response"] for row in rows],
            contexts_list=[row["contexts"] for row in rows],
        )
    )
    return found["faithful"]


def main() -> float:
    """Ask the teacher about 100 answers, tune, and judge 100 others without it."""
    llm = ScriptedLLM()
    teacher = FaithfulnessEvaluator(llm=llm)
    rows = answers(100, seed=0)
    verdicts = [
        {**row, "passing": result.passing, "source": "scripted", "judge": "FaithfulnessEvaluator"}
        for row, result in zip(rows, evaluate(teacher, rows), strict=True)
    ]
    engine = JudgeFinetuneEngine(JudgmentDataset.from_records(verdicts))
    print(engine.finetune())
    with tempfile.TemporaryDirectory() as folder:
        engine.get_finetuned_model().save(f"{folder}/judge")
        judge = TunedJudge.load(f"{folder}/judge")
    asked = llm.calls
    others = answers(100, seed=1)
    tuned = evaluate(judge, others)
    print(f"\nLLM calls by the tuned judge: {llm.calls - asked}")
    failed = next(result for result in tuned if not result.passing)
    print(f"{failed.response!r} fails:\n{failed.feedback}")
    same = [a.passing == b.passing for a, b in zip(tuned, evaluate(teacher, others), strict=True)]
    print(f"agreement with the teacher: {sum(same)} of {len(same)}")
    return sum(same) / len(same)


if __name__ == "__main__":
    main()
