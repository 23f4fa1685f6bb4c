"""A tuned query model over document vectors that stay as they are."""
