"""Stage: export a model, run what was exported, search a folder of images."""
