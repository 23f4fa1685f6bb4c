"""Tuned embeddings: adapters on frozen models."""
