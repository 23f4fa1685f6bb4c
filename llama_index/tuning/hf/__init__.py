"""What touches the trainers and models of transformers and sentence-transformers."""
