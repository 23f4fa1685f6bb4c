"""Questions to an LLM, and what its replies say."""
