"""Models: the zoo (`create_model`), the lite towers, the teachers."""
