"""Which versions of packages are installed, as far as it can be told."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "unknown"  # run from a checkout, packed into one file, or metadata that can't be read


def version_of(package: str) -> str:
    """Return the installed version of a package, 'unknown' where nothing tells it."""
    try:
        return version(package) or UNKNOWN
    except (PackageNotFoundError, OSError, KeyError, ValueError):
        return UNKNOWN


__all__ = ["UNKNOWN", "version_of"]
