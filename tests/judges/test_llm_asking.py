import pytest
from llama_index.core.evaluation import FaithfulnessEvaluator, PairwiseComparisonEvaluator
from llama_index.core.llms import LLMMetadata, MockLLM

from llama_index.tuning.datasets import Judgment
from llama_index.tuning.judges.llm.asking import evaluate_all
from llama_index.tuning.judges.llm.model import StandIn
from llama_index.tuning.judges.llm.verdicts import verdicts_of
from llama_index.tuning.judges.measure import agreement_gains
from llama_index.tuning.judges.records import NO_VERDICT
from tests.judges.llm_parts import PAIR, by_the_coin, chat_llm, coins

ITEMS = [
    Judgment(response=row["response"], contexts=row["contexts"], passing=row["passing"])
    for row in coins(6)
]


class Batched(StandIn):
    """Takes batches, and has no room for some prompts, as a local model."""

    def chat_batch(self, conversations):
        return [self.chat(messages) for messages in conversations]


def batched(reply):
    metadata = LLMMetadata(is_chat_model=True, context_window=8192)
    return Batched(lambda messages: reply(messages[-1].content), metadata)


def test_results_are_those_of_the_evaluator_with_the_llm():
    llm = chat_llm(by_the_coin)
    found = evaluate_all(FaithfulnessEvaluator(MockLLM()), ITEMS, llm)
    for item, result in zip(ITEMS, found, strict=True):
        direct = FaithfulnessEvaluator(llm).evaluate(response=item.response, contexts=item.contexts)
        assert result == direct
        assert result.passing == item.passing


def test_contexts_for_several_requests_are_refined():
    asked = []

    def reply(prompt):
        asked.append(prompt)
        return "YES" if "the end" in prompt else f"NO {len(asked)}"

    words = " ".join(f"word{number}" for number in range(1800))
    item = Judgment(response="It ends.", contexts=[words, f"{words} the end"])
    (result,) = evaluate_all(
        FaithfulnessEvaluator(MockLLM()), [item], chat_llm(reply, context_window=4096)
    )
    assert result.passing
    assert len(asked) >= 3
    assert all(f"NO {n}" in prompt for n, prompt in enumerate(asked[1:], start=1))


def test_one_prompt_without_room_does_not_cost_the_others_their_batch():
    long = ITEMS[2].response

    def reply(prompt):
        if f"Information: {long}" in prompt:
            raise ValueError("there is no room for a reply")
        return by_the_coin(prompt)

    form = FaithfulnessEvaluator(MockLLM())
    said = verdicts_of(form, ITEMS, batched(reply), pairwise=False)
    assert said.values[2] == NO_VERDICT
    assert said.faults == {"the request failed: ValueError: there is no room for a reply": 1}
    others = [number for number in range(6) if number != 2]
    assert [said.values[n] for n in others] == [float(ITEMS[n].passing) for n in others]


def test_each_request_is_sent_once():
    asked = []

    def reply(prompt):
        asked.append(prompt)
        return "[[A]]"

    pair = Judgment(**{name: PAIR[name] for name in ("query", "response", "second_response")})
    form = PairwiseComparisonEvaluator(MockLLM())
    said = verdicts_of(form, [pair, pair], chat_llm(reply), pairwise=True)
    assert len(asked) == 2  # both orders, for the consensus and for the flips
    assert said.flips.all()


def test_an_llm_that_is_no_chat_model_is_refused():
    with pytest.raises(TypeError, match="the LLM must be a chat model, got MockLLM"):
        evaluate_all(FaithfulnessEvaluator(MockLLM()), ITEMS, MockLLM())


def test_no_verdict_is_wrong_whatever_the_truth():
    found = agreement_gains([0, 0.5, 1, 1], [NO_VERDICT] * 4, [0, 0.5, 1, NO_VERDICT], [0, 1, 2, 3])
    assert (found["accuracy"].base, found["accuracy"].tuned) == (0.0, 0.75)
    assert found["balanced accuracy"].tuned == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["kappa"].base == 0.0
