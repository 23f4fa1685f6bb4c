from .chat import ChatDataset as ChatDataset
from .judgments import JudgmentDataset as JudgmentDataset
from .records import Judgment as Judgment, RoutingExample as RoutingExample
from .relevance import RelevanceDataset as RelevanceDataset
from .retrieval import (
    EmbeddingQAFinetuneDataset as EmbeddingQAFinetuneDataset,
    RetrievalDataset as RetrievalDataset,
)
from .routing import RoutingDataset as RoutingDataset
