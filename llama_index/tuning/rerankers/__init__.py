"""Re-rankers: a light one and cross-encoders, tuned on the app's own candidates."""
