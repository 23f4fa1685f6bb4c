"""A router as a whole: its selector, and the app of each of its tools."""
