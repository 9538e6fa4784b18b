"""Settings of the prior over SCMs. Nothing here needs jax."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PriorConfig:
  """Settings of the distribution of SCMs.

  Attributes:
    min_variables: the smallest SCM, at least 2.
    max_variables: the largest, and the width D of every array.
    graph_weights: relative frequency of each `graphs.Graph`.
    family_weights: relative frequency of each `mechanisms.Family`.
    noise_weights: relative frequency of each `mechanisms.Noise`.
    min_density: lowest edge probability of the Erdos-Renyi graphs.
    max_density: highest.
    min_noise: lowest ratio of a variable's noise to its signal.
    max_noise: highest.
    settable: probability that a variable other than the target may be set.
    min_width: smallest half-width of a domain, in observational deviations.
    max_width: largest.
    max_centre: furthest centre of a domain from the observational mean, in
      observational deviations.
    min_gain: an SCM whose best intervention gains less than this many
      observational deviations of the target is drawn again.
    min_length_scale: of the Fourier features, in observational deviations.
    max_set_size: Z, how many variables may be set at once.
    latent: probability that a variable other than the target is latent.
    averaged: share of the SCMs of which not one outcome of an intervention is
      watched, but the mean of many.
    budgeted: share of the SCMs with a budget of cost.
    num_hidden: hidden units of a mechanism, H.
    bank_size: draws over which E[Y | do] is averaged, S.
    num_cells: cells a domain is cut into, K.
    num_interventions: T, for which a budget of cost is meant.
  """

  min_variables: int
  max_variables: int
  graph_weights: tuple[float, ...]
  family_weights: tuple[float, ...]
  noise_weights: tuple[float, ...]
  min_density: float
  max_density: float
  min_noise: float
  max_noise: float
  settable: float
  min_width: float
  max_width: float
  max_centre: float
  min_gain: float
  min_length_scale: float
  max_set_size: int
  latent: float
  averaged: float
  budgeted: float
  num_hidden: int
  bank_size: int
  num_cells: int
  num_interventions: int
