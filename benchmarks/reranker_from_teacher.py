"""What a light re-ranker learns from a teacher's answers, measured on labels.

The teacher is a light re-ranker tuned on the training queries' labels. The student sees those
queries without labels, and what the teacher says of their candidates: its probabilities, its raw
scores, or its order alone. All are measured on the test queries' labels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from _data import arguments, dataset, lyft_and_uber, model
from _retrievers import retriever_for
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from llama_index.tuning import (
    LightReranker,
    LightRerankerFinetuneEngine,
    RelevanceDataset,
    RetrievalDataset,
    TunedRetriever,
    label_by_reranker,
)

DEPTH = 30
NO_CALIBRATION = dict.fromkeys(
    ("calibration", "thresholds", "precisions", "errors"), np.zeros(0, np.float32)
)


class OrderOnly(BaseNodePostprocessor):
    """Another re-ranker's order, without scores."""

    teacher: BaseNodePostprocessor

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        found = self.teacher.postprocess_nodes(nodes, query_bundle)
        return [NodeWithScore(node=item.node, score=None) for item in found]


def teachers(tuned: LightReranker) -> dict[str, BaseNodePostprocessor]:
    """The same teacher, saying more or less."""
    return {
        "probabilities": tuned,
        "raw scores": LightReranker(
            replace(tuned.ranker, **NO_CALIBRATION), tuned.analyzer, tuned.statistics
        ),
        "order": OrderOnly(teacher=tuned),
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=("llamaindex_10k", "chunking_eval"))
    args = parser.parse_args()
    embed = model()

    def fused(data: RetrievalDataset) -> TunedRetriever:
        base = retriever_for(data, embed, args.cache, 100)
        return TunedRetriever(base, base.nodes, reranker=None, depth=DEPTH)

    for name in args.sets:
        if name == "llamaindex_10k":
            train, test = lyft_and_uber(args.data)
        else:
            train, test = (dataset(args.data, name, split) for split in ("train", "test"))
        retriever = fused(train)
        measured = RelevanceDataset.from_retriever(test, fused(test))

        def learnt(
            lists: RelevanceDataset,
            retriever: TunedRetriever = retriever,
            measured: RelevanceDataset = measured,
        ) -> tuple[LightReranker, str]:
            engine = LightRerankerFinetuneEngine(
                lists, retriever, val_dataset=measured, accept="always"
            )
            gain = engine.finetune().slices["against default light re-ranker"]["ndcg@10"]
            said = f"ndcg@10 {gain.tuned:.3f} (untuned {gain.base:.3f})"
            return engine.get_finetuned_model(), said

        tuned, said = learnt(RelevanceDataset.from_retriever(train, retriever))
        print(f"{name}\n  from labels         {said}", flush=True)
        for what, teacher in teachers(tuned).items():
            lists = label_by_reranker(train.queries, retriever, teacher)
            print(f"  from {what:13}  {learnt(lists)[1]}", flush=True)


if __name__ == "__main__":
    main()
