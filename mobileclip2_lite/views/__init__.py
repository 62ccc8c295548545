"""Views: augmentations that are drawn once, stored as numbers and replayed anywhere."""
