"""A re-ranker without a transformer: words, scores and a linear model."""
