"""A retriever with BM25 beside it and a re-ranker on top."""
