"""Errors that a user can mend; launchers show them as one line."""


class UsageError(ValueError):
  """A flag, a config value or a directory that cannot be used."""
