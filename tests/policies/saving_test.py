"""Tests of saving and loading policies."""

import json
import pathlib
import tempfile
import types as py_types
from typing import Any, cast

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.networks import config
from acme_cbo.policies import saving
from tests.support import miniature

_ARCHITECTURE = config.NetworkConfig(
  width=8,
  num_blocks=1,
  num_heads=2,
  mlp_factor=2,
  num_cells=miniature.NUM_CELLS,
  belief_input='none',
)


class PolicyTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.directory = pathlib.Path(root) / 'policy'
    rng = np.random.default_rng(0)
    self.params = {
      'transformer/~/block0': {
        'w': rng.normal(size=(3, 4)).astype(np.float32),
        'b': np.array([0.0, -0.0, 1e-30], np.float32),
      },
      'transformer/~/outcome': {'w': np.float32(rng.normal(size=2))},
    }

  def _save(self):
    saving.save(
      self.directory, _ARCHITECTURE, self.params, {'num_observations': 20}
    )

  def test_every_bit_comes_back(self):
    self._save()
    self._save()  # Replaces the existing one.
    loaded = saving.load(self.directory)
    self.assertEqual(loaded.metadata, {'num_observations': 20})
    self.assertEqual(
      jax.tree.structure(loaded.params), jax.tree.structure(self.params)
    )
    for a, b in zip(
      jax.tree.leaves(loaded.params), jax.tree.leaves(self.params), strict=True
    ):
      self.assertEqual((a.dtype, a.tobytes()), (b.dtype, b.tobytes()))

  def test_the_network_is_that_of_the_architecture(self):
    self._save()
    network = saving.load(self.directory).network
    caches = [x.empty_cache(5, 4) for x in (network, miniature.network())]
    self.assertEqual(*(jax.tree.map(np.shape, cache) for cache in caches))

  def test_a_field_added_later_has_its_default(self):
    older = {
      name: value
      for name, value in vars(_ARCHITECTURE).items()
      if name != 'belief_input'
    }
    architecture = py_types.SimpleNamespace(**older)
    saving.save(self.directory, cast(Any, architecture), self.params, {})
    network = saving.load(self.directory).network
    self.assertIsNone(network.empty_cache(5, 4).evidence)

  @parameterized.parameters(
    ('policy.json', b'', 'policy.json is damaged'),
    ('policy.json', b'[]', 'policy.json is damaged'),
    ('policy.json', b'{"format": 1}', 'policy.json is damaged'),
    (
      'policy.json',
      b'{"format": 7}',
      'has format 7; this version reads format 1',
    ),
    ('params.npz', b'', 'is damaged: its checksum does not match'),
    ('params.npz', None, 'cannot read a policy from'),
    ('policy.json', None, 'cannot read a policy from'),
  )
  def test_damage_is_an_error(self, name, content, sentence):
    self._save()
    (self.directory / name).unlink()
    if content is not None:
      (self.directory / name).write_bytes(content)
    with self.assertRaisesRegex(errors.UsageError, sentence):
      saving.load(self.directory)

  def test_a_flipped_bit_is_an_error(self):
    self._save()
    path = self.directory / 'params.npz'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with self.assertRaisesRegex(errors.UsageError, 'checksum does not match'):
      saving.load(self.directory)

  def test_a_changed_description_is_an_error(self):
    self._save()
    path = self.directory / 'policy.json'
    path.write_text(
      path.read_text().replace('"num_heads": 2', '"num_heads": 4')
    )
    with self.assertRaisesRegex(errors.UsageError, 'checksum does not match'):
      saving.load(self.directory)

  def test_metadata_must_be_finite(self):
    with self.assertRaisesRegex(ValueError, 'JSON'):
      saving.save(self.directory, _ARCHITECTURE, self.params, {'x': np.inf})
    self.assertFalse((self.directory / 'policy.json').exists())

  def test_no_file_needs_pickle(self):
    self._save()
    json.loads((self.directory / 'policy.json').read_text())
    with np.load(self.directory / 'params.npz', allow_pickle=False) as arrays:
      self.assertLen(arrays.files, 3)


if __name__ == '__main__':
  absltest.main()
