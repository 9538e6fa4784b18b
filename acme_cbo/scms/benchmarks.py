"""Benchmark SCMs from the literature on causal Bayesian optimization.

They are written in the YAML format of `files.yaml_spec`. The inputs of function
networks are chosen rather than random; here they are root variables, uniform
over their domain under no intervention, and are always set together.
"""

from acme_cbo.infra import errors
from acme_cbo.scms import systems
from acme_cbo.scms.files import yaml_spec

_TOY = """
name: toy
source: Aglietti et al. 2020, Causal Bayesian Optimization, ToyGraph
target: Y
goal: minimize
variables:
  X: {equation: e, domain: [-5, 5], cost: 1}
  Z: {equation: exp(-X) + e, domain: [-5, 20], cost: 10}
  Y: {equation: cos(Z) - exp(-Z / 20) + e}
interventions: {sets: [[X], [Z]]}
optimum: {Z: -3.2003}
"""

_TOY_SHIFTED = """
name: toy_shifted
source: Branchini et al. 2023, Causal Entropy Optimization; Z begins at 4
target: Y
goal: minimize
variables:
  X: {equation: e, domain: [-5, 5]}
  Z: {equation: 4 + exp(-X) + e, domain: [-5.5, 13]}
  Y: {equation: cos(Z) - exp(-Z / 20) + e}
interventions: {sets: [[X], [Z], [X, Z]]}
optimum: {Z: -3.2003}
"""

_COMPLETE = """
name: complete
source: Aglietti et al. 2020, Causal Bayesian Optimization, CompleteGraph
target: Y
goal: minimize
variables:
  U1: {equation: e, latent: true}
  U2: {equation: e, latent: true}
  F: {equation: e}
  A: {equation: F**2 + U1 + e}
  B: {equation: U2 + e, domain: [-5, 4], cost: 10}
  C: {equation: exp(-B) + e}
  D: {equation: exp(-C) / 10 + e, domain: [-5, 5], cost: 5}
  E: {equation: cos(A) + C / 10 + e, domain: [-6, 3], cost: 20}
  Y: {equation: cos(D) - D / 5 + sin(E) - E / 4 + U1 + exp(-U2) + e}
interventions: {sets: [[B], [D], [E], [B, D], [B, E], [D, E]]}
optimum: {B: -5, D: 3.276}
"""

# Versions differ in a sign and in the noise.
_PSA = """
name: %s
source: %s
target: Y
goal: minimize
variables:
  A: {equation: e, noise: {uniform: [55, 75]}}
  M: {equation: 27 - 0.01 * A + e, noise: {normal: [0, %s]}}
  R: {equation: sigmoid(-8 + 0.1 * A + 0.03 * M), domain: [0, 1]}
  S: {equation: sigmoid(-13 + 0.1 * A + 0.2 * M), domain: [0, 1]}
  C: {equation: sigmoid(2.2 - 0.05 * A + 0.01 * M - 0.04 * S + 0.02 * R)}
  Y:
    equation: 6.8 + 0.04 * A %s 0.15 * M - 0.6 * S + 0.55 * R + C + e
    noise: {normal: [0, %s]}
interventions: {sets: [[R], [S], [R, S]]}
optimum: {R: 0, S: 1}
"""

_EPIDEMIOLOGY = """
name: epidemiology
source: epidemiology, version of CBO-U (Causal Bayesian Optimization with
  Unknown Graphs)
target: Y
goal: minimize
variables:
  U: {equation: e, noise: {uniform: [-1, 1]}, latent: true}
  T: {equation: e, noise: {uniform: [4, 8]}, domain: [4, 8]}
  L: {equation: sigmoid(0.5 * T + U)}
  R: {equation: 4 + L * T, domain: [5, 15]}
  Y: {equation: 0.5 + cos(4 * T) + sin(-L + 2 * R) + U + e}
interventions: {sets: [[T], [R], [T, R]]}
"""

# An input of the function is 10.24 times an action minus an offset.
_DROPWAVE = """
name: %s
source: %s
target: Y
goal: maximize
variables:
  A1: {equation: e, noise: {uniform: [0, 1]}, domain: [0, 1]}
  A2: {equation: e, noise: {uniform: [0, 1]}, domain: [0, 1]}
  R: {equation: sqrt((10.24 * A1 - %s)**2 + (10.24 * A2 - %s)**2)}
  Y: {equation: (1 + cos(12 * R)) / (2 + 0.5 * R**2)}
interventions: {sets: [[A1, A2]]}
optimum: {A1: %s, A2: %s}
"""


def _actions(number: int) -> str:
  """Returns the YAML of `number` inputs between 0 and 1."""
  return '\n'.join(
    f'  A{i}: {{equation: e, noise: {{uniform: [0, 1]}}, domain: [0, 1]}}'
    for i in range(1, number + 1)
  )


def _input(i: int) -> str:
  """Returns the formula that maps input i to [-2, 2]."""
  return f'4 * (A{i} - 0.5)'


def _together(number: int, value: float) -> str:
  """Returns the YAML that sets all inputs together, optimally at one value."""
  names = [f'A{i}' for i in range(1, number + 1)]
  best = ', '.join(f'{name}: {value}' for name in names)
  return (
    f'interventions: {{sets: [[{", ".join(names)}]]}}\noptimum: {{{best}}}\n'
  )


_MCBO = 'Sussex et al. 2023, Model-based Causal Bayesian Optimization'

_ACKLEY = f"""
name: ackley
source: {_MCBO}, Ackley
target: Y
goal: maximize
variables:
{_actions(6)}
  Q: {{equation: ({' + '.join(f'({_input(i)})**2' for i in range(1, 7))}) / 6}}
  W:
    equation: ({
  ' + '.join(f'cos(2 * pi * {_input(i)})' for i in range(1, 7))
}) / 6
  Y: {{equation: 20 * exp(-0.2 * sqrt(Q)) + exp(W) - 20 - exp(1)}}
{_together(6, 0.5)}"""


def _valley(i: int) -> str:
  """Returns the formula of term i of the negative Rosenbrock function."""
  x, next_x = _input(i), _input(i + 1)
  return f'-100 * ({next_x} - ({x})**2)**2 - (1 - {x})**2'


_ROSENBROCK = f"""
name: rosenbrock
source: {_MCBO}, Rosenbrock
target: Y
goal: maximize
variables:
{_actions(5)}
  Y1: {{equation: {_valley(1)}}}
  Y2: {{equation: Y1 {_valley(2)}}}
  Y3: {{equation: Y2 {_valley(3)}}}
  Y: {{equation: Y3 {_valley(4)}}}
{_together(5, 0.75)}"""

# YAML text of each benchmark, by name. Costs are those of the paper if it
# publishes any, else 1.
TEXTS = {
  'toy': _TOY,
  'toy_shifted': _TOY_SHIFTED,
  'complete': _COMPLETE,
  'psa': _PSA
  % ('psa', 'healthcare on PSA, version of MCBO (Sussex et al. 2023)', 0.7,
     '-', 0.4),
  # The original CEO benchmark has unit noise. The optimum is the same to three
  # digits.
  'psa_ceo': _PSA
  % ('psa_ceo', 'healthcare on PSA, CEO equations with the noise of CBO-U',
     0.7**0.5, '+', 0.4**0.5),
  'epidemiology': _EPIDEMIOLOGY,
  'dropwave': _DROPWAVE
  % ('dropwave', f'{_MCBO}, Dropwave', 5.12, 5.12, 0.5, 0.5),
  # A grid that contains the center of the domain hits dropwave's optimum by
  # chance.
  'dropwave_shifted': _DROPWAVE
  % ('dropwave_shifted', 'dropwave with its optimum off the center', 3.7, 3.7,
     3.7 / 10.24, 3.7 / 10.24),
  'ackley': _ACKLEY,
  'rosenbrock': _ROSENBROCK,
}  # fmt: skip


def load(name: str) -> systems.System:
  """Loads one of the benchmarks.

  Args:
    name: name of the benchmark, a key of `TEXTS`.

  Returns:
    The system, in the current precision.

  Raises:
    errors.UsageError: there is no benchmark of that name.
  """
  if name not in TEXTS:
    hint = errors.did_you_mean(name, list(TEXTS))
    raise errors.UsageError(
      f'benchmark {name[:70]!r} is unknown{hint}; there are {", ".join(TEXTS)}'
    )
  return yaml_spec.parse(TEXTS[name], f'benchmark {name}')
