"""Measures every stack of parts on questions that none of them had seen, and chooses."""
