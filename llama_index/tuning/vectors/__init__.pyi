from .search import top_k as top_k
