"""Storage of episodes in the output directory O of an evaluation.

O/episodes.jsonl    a line per finished episode, in the order of completion
O/config.json       the settings of the episodes
O/environment.json  code, versions, devices and command line of each start
"""

from collections.abc import Iterable, Mapping, Sequence
import json
import os
import pathlib
from typing import Any

from acme_cbo.evaluation import config as evaluation_config
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import run_directory

_FILE = 'episodes.jsonl'

# Fields of `Episode` whose keys in the file differ from their names.
_KEYS = {'parent_probabilities': 'believed'}

# Columns of steps that are not numbers.
_TEXTS = (
  'variables',
  'values',
  'recommended_variables',
  'recommended_values',
)
_NUMBERS = (int, float)
# Columns of steps without which nothing can be computed.
_REQUIRED = tuple(x for x in episodes_lib.COLUMNS if x not in _TEXTS)
# Sums of larger numbers may overflow.
MAX_NUMBER = 1e100
# Difference of two optima that are the same, as a share of the gain.
_TOLERANCE = 1e-3
# Longer names leave no room for a figure.
_MAX_NAME = 1000
NAME = f'a name without control characters, of at most {_MAX_NAME} characters'
# Settings that determine an episode, together with its SCM.
PROTOCOL = (
  'observations',
  'interventions',
  'samples',
  'budget',
  'edges',
  'seed',
)
_MAX_BYTES = 4 * 10**9

# Method, SCM and repeat of an episode.
Key = tuple[str, str, int]


def key(episode: episodes_lib.Episode) -> Key:
  """Returns the method, the SCM and the repeat of an episode."""
  return episode.method, episode.scm, episode.repeat


def record_start(
  out: pathlib.Path,
  config: dict[str, Any],
  devices: list[str],
  finished: Mapping[Key, episodes_lib.Episode],
) -> list[dict[str, Any]]:
  """Starts an evaluation in its directory, or resumes the one there.

  Args:
    out: output directory, locked.
    config: settings of the episodes: `methods` and `scms` with a digest of
      each, `repeats`, and the settings that every episode depends on.
    devices: names of the devices that are used.
    finished: episodes in the directory, by key.

  Returns:
    The entries of `environment.json`, one for each start, this one last.

  Raises:
    errors.UsageError: the directory holds episodes with other settings, or ones
      that contradict each other.
  """
  if (out / 'config.json').exists():
    old = read_config(out)
    check_agreement(out, finished.values(), old)
    _check_extends(out, old, config, finished)
  return run_directory.record_start(out, config, devices)


def read_config(out: pathlib.Path) -> dict[str, Any]:
  """Reads the settings of an evaluation; see `record_start`.

  Args:
    out: output directory.

  Raises:
    errors.UsageError: they cannot be read, or one is missing or wrong.
  """
  # Evaluations of earlier versions have no `edges`.
  config = {'edges': 'unknown', **run_directory.read_config(out)}
  path = f'{out / "config.json"} is damaged: '
  fields = config_schema.fields(evaluation_config.MethodEvaluationConfig)
  for name in (*PROTOCOL, 'repeats'):
    if name not in config:
      raise errors.UsageError(f'{path}{name} is missing')
    config_schema.check_value(f'{path}{name}', config[name], fields[name])
  for name in ('methods', 'scms'):
    digests = config.get(name)
    if not isinstance(digests, dict) or not all(
      isinstance(digest, str) for digest in digests.values()
    ):
      raise errors.UsageError(
        f'{path}{name} is {digests!r:.200}; it must be an object of digests'
      )
  return config


def _check_extends(
  out: pathlib.Path,
  old: dict[str, Any],
  new: dict[str, Any],
  finished: Iterable[Key],
) -> None:
  """Raises an error unless the new config covers all finished episodes."""
  if not finished:
    return
  changes = [
    f'{name} was {old[name]} and is {new[name]}'
    for name in new
    if name not in ('methods', 'scms', 'repeats') and old[name] != new[name]
  ]
  methods, scms, repeats = zip(*finished, strict=True)
  for kind, names in (('methods', methods), ('scms', scms)):
    for name in dict.fromkeys(names):
      if name not in new[kind]:
        changes.append(f'{name} was among the {kind} and is not')
      elif new[kind][name] != old[kind].get(name):
        changes.append(f'{_source(kind, name)} has changed')
  if max(repeats) >= new['repeats']:
    changes.append(f'repeats was {old["repeats"]} and is {new["repeats"]}')
  if changes:
    raise errors.UsageError(
      f'--out={out} holds another evaluation: {"; ".join(changes)}; choose '
      'another directory, or the same settings (methods, SCMs and repeats may '
      'be added)'
    )


def _source(kind: str, name: str) -> str:
  if kind == 'methods':
    return f'the trained policy of {name}'
  return f'the SCM {name}'


class EpisodeLog:
  """An append-only file of episodes in which every line is complete.

  Attributes:
    episodes: {key: episode}, in the order of the file.
  """

  def __init__(self, out: pathlib.Path):
    """Reads the episodes in a directory.

    A last line without a newline was cut off by a kill. It is removed, and its
    episode counts as not finished.

    Args:
      out: output directory, locked.

    Raises:
      errors.UsageError: another line is damaged.
    """
    self._path = out / _FILE
    self.episodes, incomplete_from = _read(self._path)
    if incomplete_from is not None:
      os.truncate(self._path, incomplete_from)

  def append(self, line: bytes) -> episodes_lib.Episode:
    """Appends an episode and flushes it to the disk.

    Args:
      line: result of `encode`.

    Returns:
      The episode.
    """
    episode = _add(self.episodes, line)
    with files.naming(self._path), self._path.open('ab') as file:
      file.write(line + b'\n')
      file.flush()
      os.fsync(file.fileno())
    return episode

  def ordered(
    self, scms: Sequence[str], methods: Sequence[str]
  ) -> list[episodes_lib.Episode]:
    """Returns the episodes sorted by SCM, method and repeat."""
    return sorted(
      self.episodes.values(),
      key=lambda e: (scms.index(e.scm), methods.index(e.method), e.repeat),
    )


def has_episodes(out: pathlib.Path) -> bool:
  """Returns whether a directory is that of an evaluation."""
  return (out / _FILE).exists()


def read(out: pathlib.Path) -> list[episodes_lib.Episode]:
  """Returns the finished episodes of a directory, which stays unchanged.

  Raises:
    errors.UsageError: a line is damaged.
  """
  episodes, _ = _read(out / _FILE)
  return [*episodes.values()]


def check_agreement(
  out: pathlib.Path,
  episodes: Iterable[episodes_lib.Episode],
  config: Mapping[str, Any],
) -> None:
  """Raises unless episodes agree on each system, and with their settings.

  Args:
    out: output directory, for error messages.
    episodes: its episodes.
    config: their settings, as `read_config` returns them.

  Raises:
    errors.UsageError: two episodes differ in the goal, the optimum, the outcome
      of no intervention or the causes of one system, or in the names of the
      beliefs of one method, or one is beyond the repeats or interventions.
  """
  systems: dict[tuple[str, int], episodes_lib.Episode] = {}
  beliefs: dict[tuple[str, str], Any] = {}
  for one in episodes:
    other = systems.setdefault((one.scm, one.repeat), one)
    names = one.parent_probabilities.keys()
    if len(one.steps['score']) > config['interventions']:
      complaint = f'has more than {config["interventions"]} interventions'
    elif one.repeat >= config['repeats']:
      complaint = f'is not one of the {config["repeats"]} repeats'
    elif not _have_one_system(one, other):
      complaint = (
        'differs from another method in the goal, the optimum, the outcome of '
        'no intervention or the causes of the system'
      )
    elif beliefs.setdefault((one.method, one.scm), names) != names:
      complaint = 'has other beliefs than another repeat'
    else:
      continue
    raise errors.UsageError(
      f'{out / _FILE} is damaged: the episode of {one.method} on {one.scm}, '
      f'repeat {one.repeat}, {complaint}; remove its line to run it again'
    )


def _have_one_system(
  one: episodes_lib.Episode, other: episodes_lib.Episode
) -> bool:
  """Returns whether two episodes can be on one system."""
  # Other versions or processors find the optimum with other last digits.
  tolerance = _TOLERANCE * abs(one.optimum - one.no_intervention)
  return (
    (one.goal, one.causes) == (other.goal, other.causes)
    and abs(one.optimum - other.optimum) <= tolerance
    and abs(one.no_intervention - other.no_intervention) <= tolerance
  )


def is_name(name: str) -> bool:
  """Returns whether a method or an SCM can be called this, see `NAME`."""
  return 0 < len(name) <= _MAX_NAME and name.isprintable()


def _read(
  path: pathlib.Path,
) -> tuple[dict[Key, episodes_lib.Episode], int | None]:
  """Returns the episodes in a file and the offset of its incomplete line."""
  episodes: dict[Key, episodes_lib.Episode] = {}
  _, incomplete_from = files.read_lines(
    path,
    _MAX_BYTES,
    lambda line: _add(episodes, line),
    'remove the line to run its episode again',
  )
  return episodes, incomplete_from


def _add(
  episodes: dict[Key, episodes_lib.Episode], line: bytes
) -> episodes_lib.Episode:
  """Decodes a line, adds the episode to `episodes`, and returns it."""
  episode = _decode(line)
  if key(episode) in episodes:
    raise ValueError(f'there are two episodes of {key(episode)}')
  episodes[key(episode)] = episode
  return episode


def encode(episode: episodes_lib.Episode) -> bytes:
  """Encodes an episode as a line of JSON, with all bits of every number."""
  values = {
    _KEYS.get(field, field): value for field, value in episode._asdict().items()
  }
  return json.dumps(values, allow_nan=False).encode()


def _decode(line: bytes) -> episodes_lib.Episode:
  """Decodes a line; raises a `TypeError` or a `ValueError` if it is damaged."""
  values = files.parse_json(line)
  if not isinstance(values, dict):
    raise ValueError('it is no object')
  fields = {key: field for field, key in _KEYS.items()}
  # Episodes of earlier versions have no predictions.
  values.setdefault('predicted', {})
  episode = episodes_lib.Episode(
    **{fields.get(key, key): value for key, value in values.items()}
  )
  _check(episode)
  return episode


def _check(episode: episodes_lib.Episode) -> None:
  """Raises a `ValueError` unless the values have the types of an episode."""
  # Numbers of a file that was parsed are finite.
  for field, is_valid in (
    ('method', isinstance(episode.method, str) and is_name(episode.method)),
    ('scm', isinstance(episode.scm, str) and is_name(episode.scm)),
    ('repeat', type(episode.repeat) is int and episode.repeat >= 0),
    ('goal', episode.goal in (1, -1)),
    ('no_intervention', _are_numbers([episode.no_intervention])),
    ('optimum', _are_numbers([episode.optimum])),
    ('optimum', episode.optimum != episode.no_intervention),
    ('causes', _are((bool,), episode.causes)),
    ('steps', isinstance(episode.steps, dict)),
    ('parent_probabilities', isinstance(episode.parent_probabilities, dict)),
    ('predicted', _is_prediction(episode.predicted)),
  ):
    if not is_valid:
      key = _KEYS.get(field, field)
      raise ValueError(f'{key} is {getattr(episode, field)!r:.80}')
  for name in _REQUIRED:
    if not episode.steps.get(name):
      raise ValueError(f'it has no {name}')
  length = len(episode.steps['score'])
  for name, column in episode.steps.items():
    is_valid = _are((str,), column) if name in _TEXTS else _are_numbers(column)
    if not is_valid or len(column) != length:
      raise ValueError(f'{name} is {column!r:.80}, for {length} scores')
  if (seconds := min(episode.steps['seconds'])) < 0:
    raise ValueError(f'it has a decision of {seconds:g} seconds')
  for name, belief in episode.parent_probabilities.items():
    is_valid = _are_numbers(belief) and all(0 <= p <= 1 for p in belief)
    if not is_valid or len(belief) != len(episode.causes):
      raise ValueError(
        f'the belief {name} is {belief!r:.80}, for {len(episode.causes)} '
        'candidates'
      )


def _is_prediction(predicted: Any) -> bool:
  """Returns whether it is empty or has the keys of a prediction."""
  return isinstance(predicted, dict) and (
    not predicted
    or (
      predicted.keys() == {'mean', 'low', 'high', 'crps'}
      and _are_numbers([*predicted.values()])
    )
  )


def _are(kinds: tuple[type, ...], values: Any) -> bool:
  """Returns whether it is a list of values of some types."""
  return isinstance(values, list) and all(type(x) in kinds for x in values)


def _are_numbers(values: Any) -> bool:
  """Returns whether it is a list of numbers that can be computed with."""
  return _are(_NUMBERS, values) and all(abs(x) < MAX_NUMBER for x in values)
