"""Pass rates from a judge and a few labels, with valid intervals."""
