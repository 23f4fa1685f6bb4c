"""Traces that other tools wrote, as the rows of a recorder's log."""
