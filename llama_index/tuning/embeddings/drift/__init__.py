"""A new embedding model over the vectors that the old one stored."""
