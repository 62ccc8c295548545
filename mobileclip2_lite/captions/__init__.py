"""What captioners write: generation, training to write, and measures of it all (`captioning` is the stage)."""
