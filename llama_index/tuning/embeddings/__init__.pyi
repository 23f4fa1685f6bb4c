from .adapter.engine import EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine
from .adapter.maps import LinearMap as LinearMap
from .adapter.model import AdapterEmbeddingModel as AdapterEmbeddingModel
from .adapter.options import AdapterOptions as AdapterOptions
from .adapter.saved import Adapter as Adapter
from .drift.engine import DriftAdapterFinetuneEngine as DriftAdapterFinetuneEngine
from .drift.options import DriftOptions as DriftOptions
from .full.engine import SentenceTransformersFinetuneEngine as SentenceTransformersFinetuneEngine
from .full.options import SentenceTransformersOptions as SentenceTransformersOptions
from .query.engine import QueryEncoderFinetuneEngine as QueryEncoderFinetuneEngine
from .query.model import QueryEncoderEmbeddingModel as QueryEncoderEmbeddingModel
from .query.options import QueryEncoderOptions as QueryEncoderOptions
from .reindex.index import adapt_index as adapt_index, restore_index as restore_index
