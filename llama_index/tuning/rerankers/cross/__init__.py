"""Cross-encoders: tuned, mixed with a light re-ranker, served."""
