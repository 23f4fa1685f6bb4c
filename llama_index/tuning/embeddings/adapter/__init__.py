"""Adapters: small maps on the vectors of a model that stays as it is."""
