"""Stage: keep the best pairs (Data Filtering Networks)."""
