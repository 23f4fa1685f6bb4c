"""Stored vectors mapped in place, and taken back."""
