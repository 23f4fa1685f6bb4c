"""What a light re-ranker learns from an LLM's scores: SmolLM2-135M, as it comes, is the teacher.

    python benchmarks/reranker_from_llm.py [--queries 60] [--depth 10] [--listwise 10]

The LLM scores the first candidates, fused with BM25, of some of Lyft's questions: by its
odds of a yes, by the likelihood of the question's words behind the passage (Sachan et al. 2022),
or by LlamaIndex's `LLMRerank` (a few questions: its replies have to be readable). nDCG@10 of the
LLM on those questions, and of a light re-ranker taught by it on all of Uber's, beside the untuned
one and one taught by the same questions' labels.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from _data import arguments, lyft_and_uber, model
from _retrievers import retriever_for
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import PrivateAttr
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_index.tuning import (
    LightRerankerFinetuneEngine,
    RelevanceDataset,
    RetrievalDataset,
    TunedHuggingFaceLLM,
    TunedRetriever,
    label_by_reranker,
)
from llama_index.tuning.demo import smollm2_folder
from llama_index.tuning.errors import TuningError
from llama_index.tuning.evaluate import paired_gain
from llama_index.tuning.rerankers.data import FeatureMaker
from llama_index.tuning.rerankers.light.fit import ndcg
from llama_index.tuning.rerankers.light.model import default_ranker

DEPTH = 30
SHOWN = 800
"""Characters of a passage that the LLM reads."""


class Scorer(BaseNodePostprocessor):
    """An LLM that scores one passage at a time."""

    likelihood: bool
    _model: Any = PrivateAttr()
    _tokenizer: Any = PrivateAttr()
    _yes_no: list[int] = PrivateAttr()

    def __init__(self, model: Any, tokenizer: Any, likelihood: bool) -> None:
        super().__init__(likelihood=likelihood)
        self._model, self._tokenizer = model, tokenizer
        self._yes_no = [tokenizer.encode(word)[0] for word in ("Yes", "No")]

    def _score(self, query: str, passage: str) -> float:
        opening = f"<|im_start|>user\n{passage[:SHOWN]}\n\n"
        if self.likelihood:
            start, end = f"{opening}Question:", f" {query}"
        else:
            asked = f"Does this passage answer the question: {query} Answer Yes or No."
            start, end = f"{opening}{asked}<|im_end|>\n<|im_start|>assistant\n", ""
        ids, behind = (self._tokenizer(text)["input_ids"] for text in (start, end))
        with torch.inference_mode():
            logits = self._model(torch.tensor([ids + behind])).logits[0].log_softmax(-1)
        if not self.likelihood:
            yes, no = logits[-1, self._yes_no].tolist()
            return float(yes - no)
        return float(logits[len(ids) - 1 : -1].gather(1, torch.tensor(behind)[:, None]).mean())

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        assert query_bundle is not None
        query = query_bundle.query_str
        found = [(self._score(query, item.node.get_content()), item.node) for item in nodes]
        best = sorted(found, key=lambda pair: -pair[0])
        return [NodeWithScore(node=node, score=score) for score, node in best]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--listwise", type=int, default=10)
    args = parser.parse_args()
    args.cache.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    embed = model()
    train, test = lyft_and_uber(args.data)

    def fused(data: RetrievalDataset) -> TunedRetriever:
        base = retriever_for(data, embed, args.cache, 100)
        return TunedRetriever(base, base.nodes, reranker=None, depth=DEPTH)

    drawn = np.random.default_rng(0).permutation(sorted(train.queries))[: args.queries]
    few = train.subset(drawn.tolist())
    retriever = fused(train)
    labels = RelevanceDataset.from_retriever(few, retriever, depth=args.depth)
    measured = RelevanceDataset.from_retriever(test, fused(test))
    print(f"{len(few.queries)} questions of Lyft, {len(measured)} of Uber", flush=True)

    made = FeatureMaker(retriever.index.analyzer, retriever.index).lists(labels)
    untuned = ndcg(made, [default_ranker().scores(item.features) for item in made])
    found = ndcg(made, [-np.arange(len(item.candidates)) for item in labels.lists])
    print(f"on those of Lyft: as found {found.mean():.3f}, untuned light {untuned.mean():.3f}")

    def taught(what: str, lists: RelevanceDataset) -> None:
        engine = LightRerankerFinetuneEngine(
            lists, retriever, val_dataset=measured, accept="always"
        )
        gain = engine.finetune().slices["against default light re-ranker"]["ndcg@10"]
        print(f"  taught by {what}: {gain}", flush=True)

    taught("labels", labels)
    folder = smollm2_folder()
    llm = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for what in ("yes or no", "likelihood"):
        teacher = Scorer(llm, tokenizer, what == "likelihood")
        began = time.process_time()
        lists = label_by_reranker(few.queries, retriever, teacher, depth=args.depth)
        seconds = time.process_time() - began
        said = {(i.query_id, c.node_id): c.score for i in lists.lists for c in i.candidates}
        own = [
            np.array([said[item.query_id, c.node_id] for c in item.candidates])
            for item in labels.lists
        ]
        over = paired_gain(untuned, ndcg(made, own))
        print(f"{what}: {seconds:.0f} CPU s; the LLM itself {over}", flush=True)
        taught(what, lists)
    served = TunedHuggingFaceLLM(llm, tokenizer, model_name="smollm2", max_new_tokens=100)
    stock = LLMRerank(llm=served, top_n=args.depth, choice_batch_size=5)
    some = dict(list(few.queries.items())[: args.listwise])
    began = time.process_time()
    try:
        found = label_by_reranker(some, retriever, stock, depth=args.depth)
        said = f"{len(found)} of {len(some)} questions labelled"
    except (TuningError, ValueError) as exc:
        said = f"none of {len(some)} labelled: {str(exc)[:300]}"
    print(f"LLMRerank: {said}; {time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    main()
