"""A judge without a transformer: features and a linear model."""
