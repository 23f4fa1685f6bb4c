"""Commands on folders."""
