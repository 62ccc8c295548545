"""Stage: measure a model: zero-shot, retrieval, binding, relations, shifts, captions."""
