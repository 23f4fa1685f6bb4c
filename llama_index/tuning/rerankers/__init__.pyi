from .cohere import (
    CohereRerankerFinetuneDataset as CohereRerankerFinetuneDataset,
    CohereRerankerFinetuneEngine as CohereRerankerFinetuneEngine,
    generate_cohere_reranker_finetuning_dataset as generate_cohere_reranker_finetuning_dataset,
)
from .cross.engine import CrossEncoderFinetuneEngine as CrossEncoderFinetuneEngine
from .cross.model import TunedReranker as TunedReranker
from .cross.options import CrossEncoderOptions as CrossEncoderOptions
from .light.engine import LightRerankerFinetuneEngine as LightRerankerFinetuneEngine
from .light.model import LightReranker as LightReranker
from .light.options import LightRerankerOptions as LightRerankerOptions
from .loading import load_reranker as load_reranker
from .retriever.retriever import TunedRetriever as TunedRetriever
