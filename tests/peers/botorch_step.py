"""One step of Bayesian optimisation with BoTorch, again and again.

For a Python of its own, see requirements.txt beside it; launchers/benchmark.py
starts it with --botorch. The first line that it reads is the data, as JSON; for
every line after it, it fits a Gaussian process to them and maximises expected
improvement, as in BoTorch's own example, and writes the point that it found.
"""

import json
import sys

import botorch
import gpytorch
import torch


def main() -> None:
  """Answers every line with one."""
  data = json.loads(sys.stdin.readline())
  inputs, outcomes, low, high = (
    torch.tensor(data[name], dtype=torch.double)
    for name in ('inputs', 'outcomes', 'low', 'high')
  )
  outcomes = outcomes[:, None]
  bounds = torch.stack([low, high])
  print(json.dumps({'versions': [torch.__version__, botorch.__version__]}))
  sys.stdout.flush()
  for _ in sys.stdin:
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
    point, _ = botorch.optim.optimize_acqf(
      botorch.acquisition.LogExpectedImprovement(model, outcomes.max()),
      bounds=bounds,
      q=1,
      num_restarts=5,
      raw_samples=20,
    )
    print(json.dumps(point[0].tolist()))
    sys.stdout.flush()


if __name__ == '__main__':
  main()
