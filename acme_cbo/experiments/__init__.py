"""The programs behind the launchers."""
