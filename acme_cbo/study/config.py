"""Settings of a new study, from a YAML file or from the words of flags."""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import re
from typing import Any

import yaml

from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.scms.files import yaml_nodes

_MAX_BYTES = 10**6
_KEYS = (
  'data',
  'target',
  'goal',
  'variables',
  'interventions',
  'constraints',
  'edges',
  'budget',
  'experiments',
  'columns',
  'seed',
  'policy',
)
_NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?'
_VARIABLE = re.compile(
  rf'(?P<name>.+?)\s+(?:(?P<low>{_NUMBER})\s*\.\.\s*(?P<high>{_NUMBER})'
  rf'(?:\s+step\s+(?P<step>{_NUMBER}))?|(?P<values>[^\s,]+(?:\s*,\s*[^\s,]+)+))'
  rf'(?:\s+cost\s+(?P<cost>{_NUMBER}))?'
)
_BOOLEANS = {'false': False, 'true': True}


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Reads the arguments of `Study.create` from a YAML file.

  Args:
    path: the file. Its keys are names of arguments; the path of `data` counts
      from the directory of the file.

  Returns:
    {argument: value}.

  Raises:
    errors.UsageError: the file cannot be read; the sentence names the line.
  """
  path = pathlib.Path(path)
  text = files.read_text(path, _MAX_BYTES)
  try:
    root = yaml_nodes.compose(text)
    if not isinstance(root, yaml.MappingNode):
      yaml_nodes.fail(root, 'the file must have keys such as target: titer')
    arguments = _plain(root)
    for key, _ in root.value:
      if key.value not in _KEYS:
        hint = errors.did_you_mean_or_options(key.value, _KEYS)
        yaml_nodes.fail(key, f'unknown key {key.value!r}{hint}')
    for key in ('target', 'variables'):
      if key not in arguments:
        yaml_nodes.fail(root, f'the key {key} is missing')
  except yaml_nodes.NodeError as error:
    raise errors.UsageError(f'{path}:{error.position}: {error}') from error
  for key in ('data', 'policy'):
    if isinstance(arguments.get(key), str):
      arguments[key] = path.parent / arguments[key]
  return arguments


def _plain(node: yaml.Node) -> Any:
  """Returns the value of a node: a dict, a list, a number, a bool or a text."""
  if isinstance(node, yaml.MappingNode):
    values: dict[str, Any] = {}
    for key, item in node.value:
      name = yaml_nodes.scalar(key, 'a key').value
      if name in values:
        yaml_nodes.fail(key, f'{name!r} is given twice')
      values[name] = _plain(item)
    return values
  if isinstance(node, yaml.SequenceNode):
    return [_plain(item) for item in node.value]
  scalar = yaml_nodes.scalar(node, 'a value')
  text = scalar.value
  if scalar.style in ('"', "'"):
    return text
  if text.lower() in _BOOLEANS:
    return _BOOLEANS[text.lower()]
  if text in ('', '~', 'null'):
    return None
  if re.fullmatch(_NUMBER, text):
    return int(text) if re.fullmatch(r'[-+]?\d{1,15}', text) else float(text)
  return text


def number(text: str) -> float | bool | None:
  """Returns a number or a bool that a text is, or None."""
  text = text.strip()
  if text.lower() in _BOOLEANS:
    return _BOOLEANS[text.lower()]
  return float(text) if re.fullmatch(_NUMBER, text) else None


def variables(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
  """Parses variables such as 'feed 0..5 step 0.25 cost 3'.

  Args:
    texts: a name, then LOW..HIGH and optionally `step` S, or values with commas
      between them; then, optionally, `cost` C.

  Returns:
    {name: settings}, see `space.parse`.

  Raises:
    errors.UsageError: a text is of another form.
  """
  parsed: dict[str, dict[str, Any]] = {}
  for text in texts:
    match = _VARIABLE.fullmatch(text.strip())
    if '..' in text and re.search(r'\d,\d', text):
      raise errors.UsageError(f'{text!r}: write decimal points, such as 0.5..5')
    if not match:
      raise errors.UsageError(
        f'{text!r} does not say what may be set; write NAME LOW..HIGH, '
        'optionally with step S, or NAME V1,V2,...; then, optionally, cost C'
      )
    name = match['name']
    if name in parsed:
      raise errors.UsageError(f'the variable {name!r} is given twice')
    settings: dict[str, Any] = {}
    if match['values']:
      settings['values'] = [
        one.strip() if number(one) is None else number(one)
        for one in match['values'].split(',')
      ]
    else:
      settings['domain'] = [float(match['low']), float(match['high'])]
    for key in ('step', 'cost'):
      if match[key]:
        settings[key] = float(match[key])
    parsed[name] = settings
  return parsed


def interventions(text: str | None) -> Any:
  """Parses which variables may be set together.

  Args:
    text: 'all', the largest number, or sets of names with `;` between sets and
      `,` between names; None stays None.

  Returns:
    The argument `interventions` of `Study.create`.
  """
  if text is None or text == 'all':
    return text
  if text.isascii() and text.isdecimal():
    return {'max_size': int(text)}
  return {
    'sets': [
      [name.strip() for name in names.split(',')] for names in text.split(';')
    ]
  }
