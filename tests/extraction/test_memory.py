"""The memory of `extract` does not grow with the number of images."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(folder: Path, cache: Path) -> int:
    """Return the peak resident memory of one extraction, kB."""
    extract = [sys.executable, "-m", "vggfeat", "--quiet", "extract", "--model", "vgg16-thin"]
    options = ["--weights", "random:0", "--scales", "256", "--dataset", f"folder:{folder}"]
    command = [sys.executable, "-c", _PEAK, *extract, *options, "--cache", str(cache)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(done.stdout)


@pytest.mark.slow
def test_5000_real_images_need_no_more_memory_than_500(tmp_path: Path, shared: Path) -> None:
    images = sorted((shared / "caltech101" / "101_ObjectCategories").glob("*/*.jpg"))
    random.Random(0).shuffle(images)
    peaks = {}
    for count in (500, 5000):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        for path in images[:count]:
            (folder / f"{path.parent.name}_{path.name}").symlink_to(path)
        peaks[count] = peak(folder, tmp_path / f"cache{count}")
    assert peaks[5000] <= 1.1 * peaks[500], peaks
