from .engine import EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine
from .model import AdapterEmbeddingModel as AdapterEmbeddingModel
from .options import AdapterOptions as AdapterOptions
