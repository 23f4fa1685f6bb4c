"""Words and sentences of any script."""
