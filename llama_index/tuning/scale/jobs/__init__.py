"""What is done with the rows of a folder: a file for each kind of work."""
