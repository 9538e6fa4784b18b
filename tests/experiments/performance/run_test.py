"""Test of the launcher, with the measurements replaced by its arguments."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

_ROOT = pathlib.Path(__file__).resolve().parents[3]


class LauncherTest(absltest.TestCase):
  def test_prints_a_table_and_writes_the_results(self):
    launcher = str(_ROOT / 'launchers' / 'benchmark.py')
    with tempfile.TemporaryDirectory() as directory:
      done = subprocess.run(
        [
          sys.executable,
          '-c',
          'import runpy, sys\n'
          'from acme_cbo.experiments.performance import report, run\n'
          'run.measure = lambda config, repeats, botorch, _: {\n'
          '  "tasks": config.grpo.num_tasks, "repeats": repeats,\n'
          '  "botorch": [path[-15:] for path in botorch]}\n'
          'report.table = lambda results: f"a table of {len(results)}"\n'
          f'sys.argv = [{launcher!r}, "--out=figures.json", "--repeats=3",\n'
          f'  "--config={_ROOT}/configs/grpo.py",\n'
          '  "--config.grpo.num_tasks=8", "--botorch=a_python"]\n'
          f'runpy.run_path({launcher!r}, run_name="__main__")\n',
        ],
        cwd=directory,
        env=os.environ | {'PYTHONPATH': str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
      )
      self.assertEqual(done.returncode, 0, done.stderr)
      written = (pathlib.Path(directory) / 'figures.json').read_text()
    self.assertEqual(
      json.loads(written),
      {'tasks': 8, 'repeats': 3, 'botorch': ['a_python', 'botorch_step.py']},
    )
    self.assertEqual(done.stdout, 'a table of 3\n')


if __name__ == '__main__':
  absltest.main()
