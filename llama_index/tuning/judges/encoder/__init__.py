"""A judge that is a local cross-encoder."""
