"""A judge that is an LLM tuned for a stock evaluator."""
