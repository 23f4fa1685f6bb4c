"""Tasks to tune an LLM for: each builds its dataset, verifies it, and scores an LLM on it."""
