"""All weights of a sentence-transformers model, or low-rank updates of them."""
