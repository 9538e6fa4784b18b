"""The directory of a comparison: which episodes were played, and how.

O/episodes.jsonl    a line for each finished episode, in the order of their ends
O/config.json       what they were played with
O/environment.json  code, versions, devices and command line, of each start
"""

from collections.abc import Collection, Sequence
import json
import os
import pathlib
from typing import Any

from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory

_LOG = 'episodes.jsonl'

Key = tuple[str, str, int]


def key(episode: episodes_lib.Episode) -> Key:
  """By what an episode is known: its method, its SCM and its repeat."""
  return episode.method, episode.scm, episode.repeat


def begin(
  out: pathlib.Path,
  config: dict[str, Any],
  devices: list[str],
  played: Collection[Key],
) -> list[dict[str, Any]]:
  """Begins a comparison in its directory, or goes on with the one there.

  Args:
    out: locked.
    config: what episodes are played with: `methods` and `scms` with a digest
      of each, `repeats`, and what every episode depends on.
    devices: that it computes on.
    played: the keys of the episodes that are there.

  Returns:
    What `environment.json` holds of each start, this one the last.

  Raises:
    errors.UsageError: what is there was played with something else.
  """
  if (out / 'config.json').exists():
    _check_extends(out, run_directory.read_config(out), config, played)
  return run_directory.record_start(out, config, devices)


def _check_extends(
  out: pathlib.Path,
  before: dict[str, Any],
  now: dict[str, Any],
  played: Collection[Key],
) -> None:
  """Raises unless all that was played belongs to the comparison of now."""
  if not played:
    return
  changes = [
    f'{name} was {before[name]} and is {now[name]}'
    for name in now
    if name not in ('methods', 'scms', 'repeats') and before[name] != now[name]
  ]
  methods, scms, repeats = zip(*played, strict=True)
  for kind, names in (('methods', methods), ('scms', scms)):
    for name in dict.fromkeys(names):
      if name not in now[kind]:
        changes.append(f'{name} was among the {kind} and is not')
      elif now[kind][name] != before[kind][name]:
        changes.append(f'{_made_from(kind, name)} was another one')
  if max(repeats) >= now['repeats']:
    changes.append(f'repeats was {before["repeats"]} and is {now["repeats"]}')
  if changes:
    raise errors.UsageError(
      f'--out={out} holds another evaluation: {"; ".join(changes)}; choose '
      'another directory, or the same settings (methods, SCMs and repeats may '
      'be added)'
    )


def _made_from(kind: str, name: str) -> str:
  if kind == 'methods':
    return f'the trained policy of {name}'
  return f'the SCM {name}'


class EpisodeLog:
  """The episodes of a directory; a line is there whole, or not at all."""

  def __init__(self, out: pathlib.Path):
    """Reads what is there.

    A last line without an end was torn by a kill: it is removed, and its
    episode is one that was not played.

    Args:
      out: the directory, locked.

    Raises:
      errors.UsageError: another line is damaged.
    """
    self._path = out / _LOG
    self.episodes, torn_at = _read(self._path)
    if torn_at is not None:
      os.truncate(self._path, torn_at)

  def append(self, line: bytes) -> episodes_lib.Episode:
    """Writes an episode to the disk before it returns.

    Args:
      line: from `encoded`.

    Returns:
      The episode.
    """
    episode = _add(self.episodes, line)
    with self._path.open('ab', buffering=0) as file:
      file.write(line + b'\n')
      os.fsync(file.fileno())
    return episode

  def ordered(
    self, scms: Sequence[str], methods: Sequence[str]
  ) -> list[episodes_lib.Episode]:
    """The episodes by SCM, method and repeat."""
    return sorted(
      self.episodes.values(),
      key=lambda e: (scms.index(e.scm), methods.index(e.method), e.repeat),
    )


def is_in(out: pathlib.Path) -> bool:
  """Whether a directory is one of a comparison."""
  return (out / _LOG).exists()


def read(out: pathlib.Path) -> list[episodes_lib.Episode]:
  """The finished episodes of a directory; nothing in it is touched.

  Raises:
    errors.UsageError: one is damaged.
  """
  episodes, _ = _read(out / _LOG)
  return [*episodes.values()]


def _read(
  path: pathlib.Path,
) -> tuple[dict[Key, episodes_lib.Episode], int | None]:
  """The episodes in a file, and where its torn line begins, if it has one."""
  content = path.read_bytes() if path.exists() else b''
  whole = content.rfind(b'\n') + 1
  episodes: dict[Key, episodes_lib.Episode] = {}
  for number, line in enumerate(content[:whole].splitlines(), 1):
    try:
      _add(episodes, line)
    except (TypeError, ValueError) as error:
      raise errors.UsageError(
        f'{path}, line {number}, is damaged: {error}; remove the line to have '
        'its episode played again'
      ) from error
  return episodes, whole if whole < len(content) else None


def _add(
  episodes: dict[Key, episodes_lib.Episode], line: bytes
) -> episodes_lib.Episode:
  episode = episodes_lib.Episode(**json.loads(line))
  if key(episode) in episodes:
    raise ValueError(f'there are two episodes of {key(episode)}')
  episodes[key(episode)] = episode
  return episode


def encoded(episode: episodes_lib.Episode) -> bytes:
  """An episode as a line of JSON, every number to the bit."""
  return json.dumps(episode._asdict(), allow_nan=False).encode()
