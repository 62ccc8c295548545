"""What several commands have in common: how arguments are read, and options that mean the same wherever they are."""

from __future__ import annotations

from typing import Annotated

import tyro

from mobileclip2_lite import recipes
from mobileclip2_lite.work.crew import Spread

Positional = tyro.conf.Positional
Flat = tyro.conf.arg(name="")
"""The fields of a dataclass become options of the command itself."""
COMPUTE, ALONE = recipes.Compute(), Spread()
AllowDrawn = Annotated[bool, tyro.conf.arg(help="let models of the embedded world judge other images all the same.")]
