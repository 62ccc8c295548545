"""Many trainings that answer one question: rows, recorded lines, comparison with the paper."""
