"""Tests of identification, by hand and against sums over small SCMs."""

import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.policies.baselines import identification
from tests.policies.baselines import known_scms


def _scm(
  parents: dict[str, str], settable: str, latent: str = '', sets=None
) -> types.SCM:
  """Returns an SCM of a graph; by default all sets are allowed."""
  known = known_scms.KnownSCM(
    equations=dict.fromkeys(parents, lambda v, e: e),
    parents=parents,
    latent=latent,
    domains=dict.fromkeys(settable, (0.0, 1.0)),
  )
  return known.to_scm(sets)


def _minimal_sets(scm: types.SCM) -> list[identification.Variables]:
  """Returns the allowed sets of which each member has an effect."""
  kept = np.asarray(scm.problem.settable | scm.problem.target)
  graph = identification.project(
    np.asarray(scm.parents), np.asarray(scm.order), np.flatnonzero(kept)
  )
  target = int(np.argmax(scm.problem.target))
  return [
    chosen
    for chosen in identification.allowed_sets(scm.problem)
    if identification.minimal_subset(graph, target, chosen) == chosen
  ]


# The graph of psa: age, body-mass index, aspirin, statin, cancer.
_PSA = {'A': '', 'M': 'A', 'R': 'AM', 'S': 'AM', 'C': 'AMSR', 'Y': 'AMSRC'}
_INSTRUMENT = {'Z': '', 'U': '', 'X': 'ZU', 'Y': 'XU'}
_FRONT_DOOR = {'U': '', 'X': 'U', 'Z': 'X', 'Y': 'ZU'}


class SetsTest(parameterized.TestCase):
  def named(self, scm, names, sets):
    return sorted(''.join(names[j] for j in sorted(chosen)) for chosen in sets)

  @parameterized.parameters(
    # Lee and Bareinboim (2018). A variable that shares a latent cause with the
    # target is better not intervened on, unless the path is cut.
    (_INSTRUMENT, 'XZ', 'U', ['X', 'Z'], ['X', 'Z']),
    # Setting Z is as good as setting X in any SCM.
    (_FRONT_DOOR, 'XZ', 'U', ['X', 'Z'], ['Z']),
    # Z is never minimal with X, nor best without it.
    ({'Z': '', 'X': 'Z', 'Y': 'X'}, 'XZ', '', ['X', 'Z'], ['X']),
    ({'X': '', 'Z': '', 'Y': 'XZ'}, 'XZ', '', ['X', 'XZ', 'Z'], ['XZ']),
    # A variable without effect.
    ({'X': '', 'Z': 'X', 'Y': 'X'}, 'XZ', '', ['X'], ['X']),
    # Z cannot be set: it is marginalized, and mediates the effect of X.
    ({'X': '', 'Z': 'X', 'Y': 'Z'}, 'X', '', ['X'], ['X']),
    # The common causes of R, S and Y cannot be set.
    (_PSA, 'RS', '', ['R', 'RS', 'S'], ['R', 'RS', 'S']),
  )
  def test_by_hand(self, parents, settable, latent, minimal, possibly_optimal):
    scm, names = _scm(parents, settable, latent), list(parents)
    self.assertEqual(
      self.named(scm, names, _minimal_sets(scm)),
      minimal,
    )
    self.assertEqual(
      self.named(scm, names, identification.possibly_optimal_sets(scm)),
      possibly_optimal,
    )

  def test_of_the_literature(self):
    # Aglietti et al. (2020), section 4.
    for known, minimal, possibly_optimal in (
      (known_scms.toy(), ['X', 'Z'], ['Z']),
      (
        known_scms.complete(),
        ['B', 'BD', 'BE', 'D', 'DE', 'E'],
        ['B', 'BD', 'D', 'DE', 'E'],
      ),
    ):
      scm, names = known.to_scm(), list(known.equations)
      self.assertEqual(
        self.named(scm, names, _minimal_sets(scm)),
        minimal,
      )
      self.assertEqual(
        self.named(scm, names, identification.possibly_optimal_sets(scm)),
        possibly_optimal,
      )

  @parameterized.parameters(
    (['X', 'Z'], ['Z']),
    (['X'], ['X']),
    # Not minimal, but the smaller set is not allowed.
    (['XZ'], ['XZ']),
    (['X', 'XZ'], ['X', 'XZ']),
    (['Z', 'XZ', 'Z', ''], ['Z']),
  )
  def test_only_allowed_sets(self, sets, expected):
    chain = {'X': '', 'Z': 'X', 'Y': 'Z'}
    scm = _scm(chain, 'XZ', sets=sets)
    sets = identification.possibly_optimal_sets(scm)
    self.assertEqual(self.named(scm, list(chain), sets), expected)

  def test_no_optimum_is_lost_in_any_small_scm(self):
    # Binary variables and all interventions, by sums over all noise: no other
    # set exceeds the best of the sets that are kept.
    rng = np.random.default_rng(0)
    dropped = 0
    for _ in range(40):
      parents, siblings = _random_graph(rng, 4)
      scm = _mixed(parents, siblings)
      target = 3
      graph = identification.observed_graph(scm)
      kept_sets = identification.possibly_optimal_sets(scm)
      if not identification.border(graph, target, frozenset()):
        kept_sets = [*kept_sets, frozenset()]
      dropped += 8 - len(kept_sets)
      for _ in range(12):
        best = _best_of_sets(rng, parents, siblings)
        maximum = max(best.values())
        self.assertAlmostEqual(
          max(best[chosen] for chosen in kept_sets), maximum
        )
    self.assertGreater(dropped, 80)

  def test_each_set_is_the_only_optimum_somewhere(self):
    rng = np.random.default_rng(0)
    for parents, siblings in (
      ([[], [0], [1]], [(1, 2)]),  # An instrument.
      ([[], [], [0, 1]], [(0, 2)]),
      ([[], [0], [0, 1]], [(0, 1)]),
    ):
      scm = _mixed(parents, siblings)
      kept_sets = set(identification.possibly_optimal_sets(scm))
      # A set that is not minimal is as good as a minimal one.
      minimal = _minimal_sets(scm)
      optima = set()
      for _ in range(1000):
        best = _best_of_sets(rng, parents, siblings)
        maximum = max(best.values())
        optimal = [
          c for c in [frozenset(), *minimal] if best[c] > maximum - 1e-9
        ]
        if len(optimal) == 1:
          optima.add(optimal[0])
      self.assertEqual(optima - {frozenset()}, kept_sets)


def _random_graph(rng, size):
  """Draws parents of each variable, and pairs with a common latent cause."""
  parents = [[i for i in range(j) if rng.random() < 0.6] for j in range(size)]
  siblings = [
    pair
    for pair in itertools.combinations(range(size), 2)
    if rng.random() < 0.3
  ]
  return parents, siblings


def _mixed(parents, siblings) -> types.SCM:
  """Builds an SCM with the last variable as target; latent ones are A, B ..."""
  names = [*map(str, range(len(parents) - 1)), 'Y']
  graph = {
    n: ''.join(names[i] for i in p) for n, p in zip(names, parents, strict=True)
  }
  latent = ''
  for number, (i, j) in enumerate(siblings):
    name = 'ABCDEF'[number]
    latent += name
    graph[names[i]] += name
    graph[names[j]] += name
  # Latent variables have the last columns, and come first.
  graph |= dict.fromkeys(latent, '')
  scm = _scm(graph, ''.join(names[:-1]), latent)
  columns = jnp.arange(len(graph))
  return scm._replace(order=jnp.roll(columns, len(latent)))


def _best_of_sets(rng, parents, siblings):
  """Returns the best E[Y | do] of each set in a random binary SCM."""
  size = len(parents)
  num_bits = size + len(siblings)
  bits = np.arange(1 << num_bits)[:, None] >> np.arange(num_bits) & 1
  chance = rng.uniform(0.05, 0.95, num_bits)
  weight = np.where(bits, chance, 1 - chance).prod(1)
  inputs, tables = [], []
  for j in range(size):
    own = [j] + [size + k for k, pair in enumerate(siblings) if j in pair]
    inputs.append(own)
    tables.append(rng.integers(0, 2, 1 << (len(own) + len(parents[j]))))

  def outcome(settings):
    values = np.zeros((len(bits), size), int)
    for j in range(size):
      read = np.concatenate([bits[:, inputs[j]], values[:, parents[j]]], 1)
      number = read @ (1 << np.arange(read.shape[1]))
      values[:, j] = settings.get(j, tables[j][number])
    return weight @ values[:, -1]

  best = {}
  for setting in itertools.product((None, 0, 1), repeat=size - 1):
    settings = {
      j: value for j, value in enumerate(setting) if value is not None
    }
    chosen = frozenset(settings)
    best[chosen] = max(best.get(chosen, -1.0), outcome(settings))
  return best


class GraphTest(absltest.TestCase):
  def test_projection_by_hand(self):
    # 4 -> 0, 4 -> 3 -> 1, and 0 -> 3 -> 1; 3 and 4 are removed. Then 0 -> 1
    # remains, and 0 and 1 share the latent cause 4; 2 shares one with neither.
    parents = np.zeros((5, 5), bool)
    for cause, effect in ((4, 0), (4, 3), (3, 1), (0, 3), (1, 2)):
      parents[effect, cause] = True
    graph = identification.project(parents, (4, 0, 3, 1, 2), (0, 1, 2))
    self.assertEqual(graph.order, (0, 1, 2))
    self.assertEqual(graph.parents, {0: set(), 1: {0}, 2: {1}})
    self.assertEqual(graph.siblings, {0: {1}, 1: {0}, 2: set()})

  def test_an_observed_common_cause_is_not_latent(self):
    parents = np.zeros((3, 3), bool)
    parents[1, 0] = parents[2, 0] = True
    graph = identification.project(parents, range(3), range(3))
    self.assertEqual(graph.siblings, dict.fromkeys(range(3), frozenset()))

  def test_factors_of_complete(self):
    known = known_scms.complete()
    names = list(known.equations)
    factors = identification.factorize(
      identification.observed_graph(known.to_scm()), names.index('Y')
    )

    def named(variables):
      return ''.join(names[j] for j in sorted(variables))

    given = {names[j]: named(factors.given[j]) for j in factors.order}
    # U connects A and Y, V connects B and Y, so that Y depends on A and B.
    self.assertEqual(
      given,
      {
        'F': '',
        'A': 'F',
        'B': '',
        'C': 'B',
        'D': 'C',
        'E': 'AC',
        'Y': 'FABDE',
      },
    )
    component = {names[j]: named(factors.component[j]) for j in factors.order}
    self.assertEqual(component['Y'], 'ABY')
    self.assertEqual(component['C'], 'C')

  def test_is_identified(self):
    for parents, chosen, expected in (
      (_FRONT_DOOR, 'X', True),
      (_FRONT_DOOR, 'Z', True),
      ({'U': '', 'X': 'U', 'Y': 'XU'}, 'X', False),  # A bow.
      (_INSTRUMENT, 'X', False),
      (_INSTRUMENT, 'Z', True),
      # Z is a child of X of its component, but does not reach Y without X.
      ({'U': '', 'X': 'U', 'Z': 'XU', 'Y': 'X'}, 'X', True),
    ):
      names = list(parents)
      graph = identification.observed_graph(_scm(parents, 'X', 'U'))
      actual = identification.is_identified(
        graph, names.index('Y'), [names.index(n) for n in chosen]
      )
      self.assertEqual(actual, expected, (parents, chosen))


if __name__ == '__main__':
  absltest.main()
