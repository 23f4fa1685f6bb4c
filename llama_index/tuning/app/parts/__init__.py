"""What is tuned besides retrieval: optional parts by name, and a judge."""
