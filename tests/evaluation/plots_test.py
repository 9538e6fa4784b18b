import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from acme_cbo.evaluation import plots

_CURVE = (0x1B, 0x6C, 0xA8)  # Color of the curves in the PNG.
_LEGEND = 60  # Height in pixels of the legend at the bottom.


class LearningCurveTest(parameterized.TestCase):
  @parameterized.parameters(
    (('linear', 'nonlinear'),), (('linear',),), (('nonlinear',),)
  )
  def test_draws_a_panel_for_each_group(self, groups):
    root = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(root) / 'curve.png'
    figure = plots.learning_curve(
      [0, 10, 20],
      {group: [0.0, 0.25, 0.75] for group in groups},
      {'slope': dict.fromkeys(groups, 0.5), 'a_b': dict.fromkeys(groups, 0.25)},
      'unit',
    )
    plots.save(path, figure)
    with Image.open(path) as image:
      self.assertEqual(image.format, 'PNG')
      self.assertEqual(image.size, (1350, 570))  # 9 x 3.8 inches at 150 dpi.
      pixels = np.asarray(image.convert('RGB'))[:-_LEGEND]
    drawn = (pixels == _CURVE).all(-1).any(0)
    # A curve spans most of its panel, and there is a gap between two panels.
    for strip in np.array_split(drawn, len(groups)):
      self.assertGreater(strip.mean(), 0.6)
    runs = np.flatnonzero(np.diff(np.flatnonzero(drawn)) > 20)
    self.assertLen(runs, len(groups) - 1)

  def test_one_evaluation_is_enough(self):
    figure = plots.learning_curve([0], {'linear': [0.5]}, {}, 'unit')
    (axis,) = figure.axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[0, 0.5]])


class RewardsTest(parameterized.TestCase):
  @parameterized.parameters(1, 3, 5, 6)
  def test_draws_a_panel_for_each(self, number):
    curves = {f'c{i}': np.arange(20.0) + i for i in range(number)}
    smoothed = {name: values + 0.5 for name, values in curves.items()}
    converged_at = {name: 7 if name == 'c0' else None for name in curves}
    figure = plots.rewards(curves, smoothed, converged_at)
    self.assertLen(figure.axes, number)
    for axis, (name, values) in zip(figure.axes, curves.items(), strict=True):
      self.assertEqual(axis.get_title('left'), name)
      noisy, smooth = axis.lines[:2]
      np.testing.assert_array_equal(noisy.get_xdata(), np.arange(1, 21))
      np.testing.assert_array_equal(noisy.get_ydata(), values)
      np.testing.assert_array_equal(smooth.get_ydata(), values + 0.5)
    self.assertEqual(figure.axes[0].get_title('right'), 'converged at 7')
    self.assertEqual(figure.axes[0].lines[2].get_xdata(), [7, 7])

  def test_the_total_is_first(self):
    curves = {name: np.zeros(20) for name in ('novelty', 'parent', 'total')}
    figure = plots.rewards(curves, curves, dict.fromkeys(curves))
    self.assertEqual(
      [axis.get_title('left') for axis in figure.axes],
      ['total', 'novelty', 'parent'],
    )


class EpisodeTest(absltest.TestCase):
  def test_shows_interventions_outcomes_and_beliefs(self):
    belief = np.linspace(0, 1, 12).reshape(4, 3)
    figure = plots.episode(
      intervened=np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0]], bool),
      values=np.array([[-1.5, 0, 0], [7.0, 0, 20], [0.25, 0, 0]]),
      target=np.array([1.0, 2.0, 3.0]),
      score=np.array([-0.5, 0.5, 1.0]),
      belief=belief,
      parents=np.array([True, False, False]),
      is_target=np.array([False, True, False]),
      goal=-1.0,
    )
    interventions, outcomes, beliefs, scores = figure.axes[:4]
    points = interventions.collections[0].get_offsets()
    np.testing.assert_array_equal(points, [[1, 0], [2, 0], [2, 2], [3, 0]])
    self.assertEqual(
      [x.get_text() for x in interventions.texts], ['-1.5', '7', '20', '0.25']
    )
    names = [x.get_text() for x in interventions.get_yticklabels()]
    self.assertEqual(names, ['x0 (parent)', 'x1 (target)', 'x2'])
    self.assertEqual(outcomes.get_title('left'), 'target (to minimize)')
    np.testing.assert_array_equal(outcomes.lines[0].get_ydata(), [1, 2, 3])
    np.testing.assert_array_equal(scores.lines[0].get_ydata(), [-0.5, 0.5, 1])
    np.testing.assert_array_equal(beliefs.images[0].get_array(), belief.T)


class ExtractCurvesTest(absltest.TestCase):
  def test_picks_the_rows_that_have_every_tag(self):
    metrics = [
      {'step': 0, 'eval/a': 0.5, 'eval/b': 1.0},
      {'step': 1, 'train/loss': 3.0},
      {'step': 2, 'eval/a': 0.25, 'eval/b': 2.0, 'eval/c': 9.0},
      {'step': 4, 'eval/a': 0.75},
    ]
    steps, curves = plots.extract_curves(
      metrics, {'x': 'eval/b', 'y': 'eval/a'}
    )
    self.assertEqual(steps, [0, 2])
    self.assertEqual(curves, {'x': [1.0, 2.0], 'y': [0.5, 0.25]})


class MethodsTest(absltest.TestCase):
  def test_draws_every_method_in_every_panel(self):
    flat = np.zeros(4)
    curves = {
      'grpo': plots.Curve(flat + 1, flat, flat + 2),
      'gp_bo': plots.Curve(flat + 3, None, None),
    }
    figure = plots.methods(
      'title',
      {'one': curves, 'two': {'gp_bo': curves['gp_bo']}},
      {'optimum': 5.0},
      'score',
      ['random', 'gp_bo', 'grpo'],
    )
    one, two = figure.axes
    level, grpo, gp_bo = one.lines
    np.testing.assert_array_equal(level.get_ydata(), [5, 5])
    self.assertEqual([x.get_label() for x in (grpo, gp_bo)], ['grpo', 'gp bo'])
    np.testing.assert_array_equal(grpo.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(grpo.get_ydata(), flat + 1)
    (band,) = one.collections  # Without an interval there is no band.
    self.assertEqual(band.get_datalim(one.transData).y0, 0)
    self.assertEqual(band.get_datalim(one.transData).y1, 2)
    # Methods differ by color and line style, and keep both in all figures.
    self.assertNotEqual(grpo.get_color(), gp_bo.get_color())
    self.assertNotEqual(grpo.get_linestyle(), gp_bo.get_linestyle())
    self.assertEqual(two.lines[1].get_color(), gp_bo.get_color())
    (legend,) = figure.legends
    self.assertEqual(
      [text.get_text() for text in legend.get_texts()],
      ['grpo', 'gp bo', 'optimum'],
    )

  def test_over_seconds(self):
    curve = plots.Curve(np.arange(3.0), None, None, np.array([0.1, 0.3, 4.0]))
    (axes,) = plots.methods('t', {'p': {'a': curve}}, {}, 'y', ['a']).axes
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0.1, 0.3, 4.0])
    self.assertEqual(axes.get_xlabel(), 'computing time (s)')
    self.assertEqual(axes.get_xscale(), 'log')

  def test_one_step_is_a_point(self):
    figure = plots.methods(
      't', {'p': {'a': plots.Curve(np.ones(1), None, None)}}, {}, 'y', ['a']
    )
    self.assertEqual(figure.axes[0].lines[0].get_marker(), 'o')


if __name__ == '__main__':
  absltest.main()
