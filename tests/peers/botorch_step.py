"""Steps of Bayesian optimisation with BoTorch.

For a Python of its own, see requirements.txt beside it; launchers/benchmark.py
and docs/studies/tables.py start it with --botorch. For every line that it
reads, data as JSON, it fits a Gaussian process to them, maximises an expected
improvement, and writes the point that it found, and the number of the input of
the highest posterior mean. The improvement is over the best outcome, as in
BoTorch's own example, or where the data are `noisy`, over the best expected one
(qLogNoisyExpectedImprovement), as BoTorch recommends.
"""

import json
import sys

import botorch
import gpytorch
import torch


def main() -> None:
  """Answers every line with one."""
  for line in sys.stdin:
    data = json.loads(line)
    inputs, outcomes, low, high = (
      torch.tensor(data[name], dtype=torch.double)
      for name in ('inputs', 'outcomes', 'low', 'high')
    )
    outcomes = outcomes[:, None]
    bounds = torch.stack([low, high])
    model = botorch.models.SingleTaskGP(
      inputs,
      outcomes,
      input_transform=botorch.models.transforms.Normalize(
        d=inputs.shape[1], bounds=bounds
      ),
      outcome_transform=botorch.models.transforms.Standardize(m=1),
    )
    botorch.fit.fit_gpytorch_mll(
      gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    )
    acquisition = botorch.acquisition
    if data.get('noisy'):
      improvement = acquisition.qLogNoisyExpectedImprovement(model, inputs)
    else:
      improvement = acquisition.LogExpectedImprovement(model, outcomes.max())
    point, _ = botorch.optim.optimize_acqf(
      improvement, bounds=bounds, q=1, num_restarts=5, raw_samples=20
    )
    best = int(model.posterior(inputs).mean.argmax())
    print(json.dumps({'point': point[0].tolist(), 'best': best}), flush=True)


if __name__ == '__main__':
  main()
