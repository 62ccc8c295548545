"""First stage: image-text pairs from anywhere become shards of one form."""
