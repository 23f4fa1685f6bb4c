"""A tuned model as a LlamaIndex LLM."""
