"""Recipes: every setting of every stage as plain data, the named ones, and in what two of them differ."""

from mobileclip2_lite.recipes.data_settings import AltText, Augment, Caption, Filter, Generate, Pairs, Reinforce, World
from mobileclip2_lite.recipes.differences import Difference, difference_table, differences, field_docs
from mobileclip2_lite.recipes.named import RECIPES, emoji, lite, named, paper_2b, paper_12m, study, tiny
from mobileclip2_lite.recipes.settings import Compute, Evaluate, Recipe, Temperature, Train

__all__ = [
    "RECIPES",
    "AltText",
    "Augment",
    "Caption",
    "Compute",
    "Difference",
    "Evaluate",
    "Filter",
    "Generate",
    "Pairs",
    "Recipe",
    "Reinforce",
    "Temperature",
    "Train",
    "World",
    "difference_table",
    "differences",
    "emoji",
    "field_docs",
    "lite",
    "named",
    "paper_2b",
    "paper_12m",
    "study",
    "tiny",
]
