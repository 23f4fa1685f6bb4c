"""Tuned LLMs: on this machine, or by a hosted job."""
