from .bootstrap import paired_gain as paired_gain
from .chunkings import (
    Chunking as Chunking,
    ChunkingComparison as ChunkingComparison,
    compare_chunkings as compare_chunkings,
)
from .retrieval import (
    RetrievalScores as RetrievalScores,
    aevaluate_retriever as aevaluate_retriever,
    evaluate_retriever as evaluate_retriever,
    evaluate_vectors as evaluate_vectors,
    score_grades as score_grades,
    score_rankings as score_rankings,
)
