"""Tuning LLMs."""
