"""The playground within a notebook: exported towers that run in the reader's own browser, without the kernel.

The runtime comes from npm once (`make playground`); where it is not there, a line says so. Taught by
notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.notebook.dials import in_notebook, show_widget

RUNTIME = Path("runs/npm/package/dist")
"""Where `make playground` puts ONNX Runtime Web, below the repository."""


def playground_box(
    towers: str | os.PathLike,
    album: Sequence[tuple[str, Any]] = (),
    names: Sequence[str] = (),
    template: str = "a picture of a {}",
    query: str = "",
    credit: str = "",
    runtime: str | os.PathLike | None = None,
) -> None:
    """Show the playground of exported towers in a live notebook: draw, drop or paste an image, type names, search.

    Args:
        towers: folder that `export_onnx` wrote.
        album: (name, image) to search; the first is looked at.
        names: for images.
        template: sentence around a name.
        query: what the album is searched for.
        credit: whose images are shown.
        runtime: folder `dist` of onnxruntime-web; None looks where `make playground` puts it.
    """
    if not in_notebook():
        return
    from mobileclip2_lite.deployment.playground import Picture, Start, widget

    start = Start(Path(towers).name, tuple(names), template, query, credit)
    try:
        view = widget(towers, runtime or _runtime(), [Picture(*one) for one in album], start)
    except FileNotFoundError:
        print("(the playground: `make playground` fetches what it runs on from npm, once; then run this cell again)")
    except ModuleNotFoundError as error:
        print(f"({error})")
    else:
        show_widget(view, "the model in your browser, to drop an image into and type names")


def _runtime() -> Path:
    """The runtime here, in a folder above, or in the repository."""
    here, repository = Path.cwd(), Path(__file__).resolve().parents[2]
    found = (folder / RUNTIME for folder in (here, *here.parents, repository))
    return next((folder for folder in found if folder.is_dir()), here / RUNTIME)
