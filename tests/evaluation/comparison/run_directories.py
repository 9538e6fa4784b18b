"""Run directories as a training writes them, without training."""

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
  """Writes the directory of a run of `:smoke`.

  Args:
    path: directory to write.
    updates: number of updates made; all of them if None.
    status: final status of the run.
    policy_seed: seed of a small policy that can be evaluated; if None, the
      policy file is empty.
    **settings: changed fields of the config, for example rewards__parent=0.0.

  Returns:
    `path`.
  """
  smoke = grpo.get_config('smoke')
  smoke.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in settings.items()}
  )
  config = smoke.to_dict()
  path.mkdir(parents=True)
  if policy_seed is None:
    (path / 'policy').mkdir()
    (path / 'policy' / 'policy.json').touch()
  else:
    tiny_environments.save_policy(path / 'policy', policy_seed)
  (path / 'config.json').write_text(json.dumps(config))
  if updates is None:
    updates = config['training']['num_updates']
  summary = {'status': status, 'updates': updates}
  (path / 'summary.json').write_text(json.dumps(summary))
  return path
