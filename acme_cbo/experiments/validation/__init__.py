"""Checks that a configuration does what it promises."""
