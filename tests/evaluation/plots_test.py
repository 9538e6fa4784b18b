import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from acme_cbo.evaluation import plots

_CURVE = (0x1B, 0x6C, 0xA8)  # The colour of the curves, as it is read back.
_LEGEND = 60  # Pixels at the bottom, where the same colour is explained.


class LearningCurveTest(parameterized.TestCase):
  @parameterized.parameters(
    (('linear', 'nonlinear'),), (('linear',),), (('nonlinear',),)
  )
  def test_draws_a_panel_for_each_group(self, groups):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'curve.png'
    plots.learning_curve(
      path,
      [0, 10, 20],
      {group: [0.0, 0.25, 0.75] for group in groups},
      {'slope': dict.fromkeys(groups, 0.5), 'a_b': dict.fromkeys(groups, 0.25)},
    )
    with Image.open(path) as image:
      self.assertEqual(image.format, 'PNG')
      self.assertEqual(image.size, (1350, 570))  # 9 x 3.8 inches at 150 dpi.
      pixels = np.asarray(image.convert('RGB'))[:-_LEGEND]
    drawn = (pixels == _CURVE).all(-1).any(0)
    # A curve spans most of its panel; what is between two panels is empty.
    for strip in np.array_split(drawn, len(groups)):
      self.assertGreater(strip.mean(), 0.6)
    runs = np.flatnonzero(np.diff(np.flatnonzero(drawn)) > 20)
    self.assertLen(runs, len(groups) - 1)

  def test_one_evaluation_is_enough(self):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'curve.png'
    plots.learning_curve(path, [0], {'linear': [0.5]}, {})
    self.assertGreater(path.stat().st_size, 1000)


class CurvesOfTest(absltest.TestCase):
  def test_picks_the_rows_that_have_every_tag(self):
    metrics = [
      {'step': 0, 'eval/a': 0.5, 'eval/b': 1.0},
      {'step': 1, 'train/loss': 3.0},
      {'step': 2, 'eval/a': 0.25, 'eval/b': 2.0, 'eval/c': 9.0},
      {'step': 4, 'eval/a': 0.75},
    ]
    steps, curves = plots.curves_of(metrics, {'x': 'eval/b', 'y': 'eval/a'})
    self.assertEqual(steps, [0, 2])
    self.assertEqual(curves, {'x': [1.0, 2.0], 'y': [0.5, 0.25]})


if __name__ == '__main__':
  absltest.main()
