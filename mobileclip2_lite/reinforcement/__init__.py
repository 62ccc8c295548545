"""Stage: store views and all teachers' embeddings with every pair, once."""
