"""Version of the package, also that of the wheel (pyproject.toml)."""

__version__ = '0.2.0'
