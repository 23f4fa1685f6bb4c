"""LLMs tuned on this machine."""
