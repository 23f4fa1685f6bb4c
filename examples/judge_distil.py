"""Distil an LLM-based evaluator into a judge without an LLM

LlamaIndex's `FaithfulnessEvaluator` asks an LLM about every answer. Here its verdicts on a hundred
answers teach a judge that needs no LLM, answers in a millisecond, and says which sentence it
doubts.
"""

import random
import tempfile
from typing import Any

from llama_index.core.async_utils import asyncio_run
from llama_index.core.evaluation import BatchEvalRunner, FaithfulnessEvaluator
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

from llama_index.tuning import JudgeFinetuneEngine, JudgmentDataset, TunedJudge

# The large model follows a script here: an answer is faithful where its price is in the context.
# Give your own LLM to the evaluator instead.


class ScriptedLLM(CustomLLM):
    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.calls += 1
        answer = prompt.rsplit("Information:", 1)[-1].split("Context:")[0]
        context = prompt.rsplit("Context:", 1)[-1]
        prices = [word for word in answer.replace(".", "").split() if word.isdigit()]
        return CompletionResponse(text="YES" if prices and prices[0] in context else "NO")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError("the evaluator does not stream")


# The app's answers. Every other one gets the price wrong; all name some people as well, and which
# of them the context knows is chance, so that shared words alone cannot tell right from wrong.

PLANS = ["basic", "family", "student", "business", "travel", "senior"]
SYLLABLES = ["ka", "ri", "mo", "len", "tor", "sha", "vi", "bel", "dun", "no", "zy", "gar"]


def answers(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        plan, price = draw.choice(PLANS), draw.randint(100, 499)
        said = price if draw.random() < 0.5 else draw.randint(500, 999)
        names = ["".join(draw.sample(SYLLABLES, 3)).title() for _ in range(6)]
        sentence = draw.choice(["The {} plan costs {} euros.", "For the {} plan you pay {} euros."])
        asked = draw.sample(names, draw.randint(1, 5))
        offer = f"{seed}/{number}"
        rows.append(
            {
                "query": f"What does the {plan} plan of offer {offer} cost?",
                "contexts": [
                    f"Offer {offer}: {plan}, price in EUR: {price}. Staff: {', '.join(names[:3])}."
                ],
                "response": f"{sentence.format(plan, said)} Ask {', '.join(asked)}.",
            }
        )
    return rows


# LlamaIndex's own runner asks any evaluator about all of them.


def evaluate(evaluator: Any, rows: list[dict[str, Any]]) -> list[Any]:
    runner = BatchEvalRunner({"faithful": evaluator}, workers=4)
    found = asyncio_run(
        runner.aevaluate_response_strs(
            queries=[row["query"] for row in rows],
            response_strs=[row["response"] for row in rows],
            contexts_list=[row["contexts"] for row in rows],
        )
    )
    return found["faithful"]


# The teacher's verdicts on a hundred answers are the training data.

llm = ScriptedLLM()
teacher = FaithfulnessEvaluator(llm=llm)
rows = answers(100, seed=0)
verdicts = [
    {**row, "passing": result.passing, "source": "scripted", "judge": "FaithfulnessEvaluator"}
    for row, result in zip(rows, evaluate(teacher, rows), strict=True)
]

# The report compares the judge with shortcuts – length alone, overlap alone – and the gate keeps
# it only if it beats them.

engine = JudgeFinetuneEngine(JudgmentDataset.from_records(verdicts))
print(engine.finetune())

# The judge is an evaluator of LlamaIndex. On a hundred new answers it asks no LLM, and its
# feedback names what it doubts.

folder = tempfile.mkdtemp()
engine.get_finetuned_model().save(f"{folder}/judge")
judge = TunedJudge.load(f"{folder}/judge")
others = answers(100, seed=1)
before = llm.calls
tuned = evaluate(judge, others)
print("LLM calls by the tuned judge:", llm.calls - before)
failed = next(result for result in tuned if not result.passing)
print(f"{failed.response!r} fails:\n{failed.feedback}")
same = [a.passing == b.passing for a, b in zip(tuned, evaluate(teacher, others), strict=True)]
print(f"agreement with the teacher: {sum(same)} of {len(same)}")
