"""Judges: what an app's answers are worth, and how far the verdicts can be trusted."""
