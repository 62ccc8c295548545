"""What waits for its rows does not hold the pixels of its views."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

VIEWS, SAMPLES = 8, 80
SIDE = 224


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give large arrays back by themselves")
def test_memory_does_not_grow_by_the_pixels_of_samples_that_wait():
    """Texts go in pieces of 128, so that here all samples wait: rows and texts stay while their pixels go."""
    program = f"""
        import numpy as np, psutil, torch
        from doubles.fake_teachers import FakeTeachers
        from mobileclip2_lite.reinforcement.embedder import Embedder
        from mobileclip2_lite.shards.samples import Sample

        class Large(FakeTeachers):
            def image_size(self, name):
                return {SIDE}

        torch.set_num_threads(1)
        embed, seen = Embedder(Large(), 256), []
        for number in range({SAMPLES}):
            image = np.full(({SIDE}, {SIDE}, 3), number, np.uint8)
            views = {{name: [image + view for view in range({VIEWS})] for name in Large.names}}
            embed.push(Sample(uid=str(number), image=b"", ext="jpg", text=f"text {{number}}"), views)
            seen.append(psutil.Process().memory_info().rss)
        print(seen[{SAMPLES // 4}], seen[-1])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
    )
    early, late = map(int, done.stdout.split())
    pixels = SAMPLES * 3 / 4 * VIEWS * 2 * SIDE**2 * 3
    assert late - early < pixels / 3, f"{(late - early) / 2**20:.0f} MB more, of {pixels / 2**20:.0f} MB of pixels"
