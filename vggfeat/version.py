"""The version, and those of the packages that a number may hang on."""

from __future__ import annotations

__version__ = "0.2.0"

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "h5py")


def versions() -> dict[str, str]:
    """Return the versions that a number may hang on: ours, Python's and those of packages."""
    import platform
    from importlib.metadata import version

    packages = {name: version(name) for name in _PACKAGES}
    return {"vggfeat": __version__, "python": platform.python_version(), **packages}
