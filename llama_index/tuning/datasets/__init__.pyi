from .chat import ChatDataset as ChatDataset
from .judgments import Judgment as Judgment, JudgmentDataset as JudgmentDataset
from .relevance import RelevanceDataset as RelevanceDataset
from .retrieval import (
    EmbeddingQAFinetuneDataset as EmbeddingQAFinetuneDataset,
    RetrievalDataset as RetrievalDataset,
)
from .routing import RoutingDataset as RoutingDataset, RoutingExample as RoutingExample
