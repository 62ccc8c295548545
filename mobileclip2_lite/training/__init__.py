"""Stage: train the student, the control, or a captioner."""
