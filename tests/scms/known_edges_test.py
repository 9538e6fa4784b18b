"""Tests of known edges."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import known_edges

_NAMES = ('dose', 'heat', 'yield')


class ParseTest(parameterized.TestCase):
  def test_required_and_forbidden(self):
    known = known_edges.parse(
      {
        'required': ['dose->yield', ('heat', 'yield')],
        'forbidden': [' yield -> dose '],
      },
      _NAMES,
    )
    # Rows are effects, columns are causes.
    np.testing.assert_array_equal(known, [[0, 0, -1], [0, 0, 0], [1, 1, 0]])

  def test_all_directions_may_be_forbidden(self):
    edges = ['dose -> heat', 'heat -> dose']
    known = known_edges.parse({'forbidden': edges}, _NAMES)
    np.testing.assert_array_equal(known, [[0, -1, 0], [-1, 0, 0], [0, 0, 0]])

  @parameterized.parameters((None,), ({},), ({'required': []},))
  def test_nothing_is_known(self, edges):
    self.assertIsNone(known_edges.parse(edges, _NAMES))

  @parameterized.parameters(
    (['dose -> yield'], r"the edges are \['dose -> yield'\]; they must be a d"),
    ({'require': []}, "edges cannot be 'require'; did you mean required"),
    ({'required': 'dose -> yield'}, "required edges are 'dose -> yield'; they"),
    ({'forbidden': ['dose']}, "'dose' is no edge; write it as 'cause -> eff"),
    ({'forbidden': ['a -> b -> c']}, "'a -> b -> c' is no edge"),
    ({'forbidden': [('dose', 3)]}, "3 in the edge 'dose -> 3' is no observed"),
    ({'required': ['does -> yield']}, "'does' in the edge 'does -> yield' is"),
    ({'required': ['dose -> dose']}, "'dose' cannot be a cause of itself"),
    (
      {'required': ['dose -> yield'], 'forbidden': ['dose -> yield']},
      "the edge 'dose -> yield' is both required and forbidden",
    ),
    (
      {'required': ['dose -> heat', 'heat -> yield', 'yield -> dose']},
      'the required edges form a cycle: (dose|heat|yield) -> ',
    ),
  )
  def test_one_sentence_each(self, edges, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      known_edges.parse(edges, _NAMES)


if __name__ == '__main__':
  absltest.main()
