"""The command that makes teachers for photographs: `photo-teachers`."""

from __future__ import annotations

from pathlib import Path

from mobileclip2_lite import recipes
from mobileclip2_lite.cli.options import Positional
from mobileclip2_lite.cli.places import Commands


def add(app: Commands, recipe: recipes.Recipe) -> None:
    """Register the command."""

    @app.command(name="photo-teachers")
    def photo_teachers(
        names: Positional[tuple[str, ...]] = (),
        captions: Path | None = None,
        held_out: Path | None = None,
        place: Path | None = None,
    ) -> None:
        """Make teachers for photographs from packages, in minutes (the extra `photos`); then name them as teachers.

        Args:
            names: of `photo-teacher-names`, `photo-teacher-vectors`, `photo-teacher-captions`; all that can be made.
            captions: folder of pairs (made by `pairs`) whose images and captions the last one is fitted on.
            held_out: folder of other pairs, to measure on: R@1 and R@10 go into the cards.
            place: folder to write; default `MOBILECLIP2_LITE_MODELS`, or `~/.cache/mobileclip2_lite`.
        """
        from mobileclip2_lite.studies.photo_teachers import make_teachers

        for folder, card in make_teachers(names, captions, held_out, place):
            print(folder)
            if "unseen_names" in card:
                shares = {key: f"{100 * value:.1f} %" for key, value in card["unseen_names"].items()}
                print(f"  names it was not fitted on: {shares['top1']} of 200 (chance {shares['chance']})")
            if "held_out" in card:
                found = card["held_out"]
                both = f"{100 * found['i2t_r1']:.1f} % and {100 * found['t2i_r1']:.1f} %"
                print(f"  R@1 among {found['images']} images, image to text and text to image: {both}")
