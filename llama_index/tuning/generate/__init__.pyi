from .cross_encoder import (
    generate_ce_fine_tuning_dataset as generate_ce_fine_tuning_dataset,
    generate_synthetic_queries_over_documents as generate_synthetic_queries_over_documents,
)
from .documents import (
    QueryComparison as QueryComparison,
    compare_queries as compare_queries,
    read_passages as read_passages,
)
from .multihop import generate_multi_hop_queries as generate_multi_hop_queries
from .negatives import MinedDataset as MinedDataset, mine_hard_negatives as mine_hard_negatives
from .paraphrases import generate_paraphrases as generate_paraphrases
from .questions import (
    DEFAULT_QA_GENERATE_PROMPT_TMPL as DEFAULT_QA_GENERATE_PROMPT_TMPL,
    DEFAULT_QUERY_DOC_RELEVANCE_PROMPT as DEFAULT_QUERY_DOC_RELEVANCE_PROMPT,
    QUESTION_STYLES as QUESTION_STYLES,
    generate_qa_embedding_pairs as generate_qa_embedding_pairs,
)
from .relevance import (
    CallEstimate as CallEstimate,
    CrossEncoderFinetuningDatasetSample as CrossEncoderFinetuningDatasetSample,
    RelevanceLabels as RelevanceLabels,
    label_relevance as label_relevance,
)
from .reranker_labels import (
    LabelledRelevance as LabelledRelevance,
    label_by_reranker as label_by_reranker,
)
from .routing import generate_routing_examples as generate_routing_examples
from .sentences import generate_sentence_queries as generate_sentence_queries
from .unanswerable import (
    UnansweredQueries as UnansweredQueries,
    generate_unanswerable_queries as generate_unanswerable_queries,
)
