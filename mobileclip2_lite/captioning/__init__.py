"""Stage: captioners write synthetic captions about every image."""
