"""The version, in one place: the build, the root package and the User-Agent header read it."""

__version__ = "0.1.0"
