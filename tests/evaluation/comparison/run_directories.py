"""Directories as trained runs leave them, without what trained them."""

import json
import pathlib
from typing import Any

from configs import grpo
from tests.support import tiny_environments


def write(
  path: pathlib.Path,
  updates: int | None = None,
  status: str = 'finished',
  policy_seed: int | None = None,
  **settings: Any,
) -> pathlib.Path:
  """A run of `:smoke`.

  Args:
    path: where.
    updates: that were made; all of them if not given.
    status: how it ended.
    policy_seed: of a small policy that plays; without it there is none to read.
    **settings: of its config, as rewards__parent=0.0.

  Returns:
    `path`.
  """
  given = grpo.get_config('smoke')
  given.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in settings.items()}
  )
  config = given.to_dict()
  path.mkdir(parents=True)
  if policy_seed is None:
    (path / 'policy').mkdir()
    (path / 'policy' / 'policy.json').touch()
  else:
    tiny_environments.save_policy(path / 'policy', policy_seed)
  (path / 'config.json').write_text(json.dumps(config))
  made = config['training']['num_updates'] if updates is None else updates
  summary = {'status': status, 'updates': made}
  (path / 'summary.json').write_text(json.dumps(summary))
  return path
