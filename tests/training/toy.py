"""A training state small enough to compile at once, and a recorder of calls."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo.training import trainer as trainer_lib


class State(NamedTuple):
  params: dict[str, jax.Array]
  key: jax.Array
  step: jax.Array


def init(step: int = 0) -> State:
  return State(
    params={'mlp/~/linear.w': jnp.arange(3, dtype=jnp.float32)},
    key=jax.random.key(7),
    step=jnp.array(step, jnp.int32),
  )


def _update(state: State):
  key, noise_key = jax.random.split(state.key)
  noise = jax.random.normal(noise_key, (3,))
  params = jax.tree.map(lambda x: 0.9 * x + noise, state.params)
  loss = jnp.sum(params['mlp/~/linear.w'] ** 2)
  return State(params, key, state.step + 1), {'train/loss': loss}


# The state is donated, as the real runtimes do.
update = jax.jit(_update, donate_argnums=0)


def evaluate(state: State) -> dict[str, float]:
  return {'eval/score': float(jnp.sum(state.params['mlp/~/linear.w']))}


class Recorder(trainer_lib.Callback):
  """Logger and callback in one: appends every call to `calls`.

  A call whose name is a key of `failures` raises that exception.
  """

  def __init__(self, calls=None, name='', failures=None):
    self.calls = [] if calls is None else calls
    self.name = name
    self.failures = failures or {}
    self.metrics = []
    self.exceptions = []

  def _record(self, call, *details):
    self.calls.append((self.name + call, *details))
    if call in self.failures:
      raise self.failures[call]

  def step(self, state):
    self._record('step', int(state.step))
    return update(state)

  def evaluate(self, state):
    self._record('evaluate', int(state.step))
    return evaluate(state)

  def check_state_dict(self, state):
    del state

  def state_dict(self):
    return {'calls': len(self.calls)}

  def write(self, step, metrics):
    self.metrics.append((step, dict(metrics)))
    self._record('write', step)

  def write_image(self, step, tag, pixels):
    self._record('write_image', step, tag)

  def write_histogram(self, step, tag, values):
    self._record('write_histogram', step, tag)

  def write_text(self, tag, text):
    self._record('write_text', tag, text)

  def close(self):
    self._record('close')

  def on_after_log(self, trainer, state, metrics):
    self._record('on_after_log', int(state.step))

  def on_fit_start(self, trainer, state):
    self._record('on_fit_start', int(state.step))

  def on_train_batch_end(self, trainer, state, metrics):
    self._record('on_train_batch_end', int(state.step))

  def on_validation_end(self, trainer, state, metrics):
    self._record('on_validation_end', int(state.step))

  def on_fit_end(self, trainer, state):
    self._record('on_fit_end', int(state.step))

  def on_exception(self, trainer, exception):
    self.exceptions.append(exception)
    self._record('on_exception')
