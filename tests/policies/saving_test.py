"""Tests of saving and loading policies."""

import hashlib
import io
import json
import pathlib
import tempfile
import types as py_types
from typing import Any, cast
import zipfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.networks import config
from acme_cbo.networks import tokens
from acme_cbo.networks import transformer
from acme_cbo.policies import saving
from acme_cbo.scms import config as scms_config
from tests.support import hand_made_scms

_ARCHITECTURE = config.NetworkConfig(
  width=8,
  num_blocks=1,
  num_heads=2,
  mlp_factor=2,
  num_cells=8,
  belief_input='none',
)


_METADATA = {
  'scms': config_schema.to_dict(scms_config.PriorConfig()),
  'horizon': {'num_observations': 20, 'num_interventions': 3},
}


def _parameters():
  """Returns parameters of the network, with numbers that are easily lost."""
  params = jax.device_get(
    jax.jit(transformer.make(_ARCHITECTURE).init)(
      jax.random.key(0),
      hand_made_scms.problem(3, 1),
      np.zeros((2, 3)),
      tokens.start_row(3),
    )
  )
  params = jax.tree.map(np.array, params)
  first: Any = max(jax.tree.leaves(params), key=np.size)
  first.flat[:2] = [-0.0, 1e-30]
  return params


def _npz(arrays, compressed=False):
  """Returns the content of an npz file."""
  stream = io.BytesIO()
  (np.savez_compressed if compressed else np.savez)(stream, **arrays)
  return stream.getvalue()


class PolicyTest(parameterized.TestCase):
  params: Any

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.params = _parameters()

  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.directory = pathlib.Path(root) / 'policy'

  def _save(self, metadata=_METADATA):
    saving.save(self.directory, _ARCHITECTURE, self.params, metadata)

  def _forge(self, content=(), parameters=None):
    """Replaces parts of a saved policy, under a digest that matches.

    Args:
      content: {field: value} of policy.json.
      parameters: content of params.npz.
    """
    path, arrays = self.directory / 'policy.json', self.directory / 'params.npz'
    if parameters is not None:
      arrays.write_bytes(parameters)
    forged = json.loads(path.read_text()) | dict(content)
    del forged['sha256']
    digest = hashlib.sha256(json.dumps(forged, sort_keys=True).encode())
    digest.update(arrays.read_bytes())
    path.write_text(json.dumps(forged | {'sha256': digest.hexdigest()}))

  def _arrays(self):
    with np.load(self.directory / 'params.npz') as arrays:
      return dict(arrays)

  @parameterized.parameters(False, True)
  def test_every_bit_comes_back(self, enable_x64):
    self._save()
    self._save()  # Replaces the existing one.
    with jax.enable_x64(enable_x64):
      loaded = saving.load(self.directory)
    self.assertEqual(loaded.metadata, _METADATA)
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
    caches = [
      x.empty_cache(5, 4) for x in (network, transformer.make(_ARCHITECTURE))
    ]
    self.assertEqual(*(jax.tree.map(np.shape, cache) for cache in caches))

  def test_the_policy_of_the_package_passes_the_checks_of_others(self):
    copy = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    for file in saving.SHIPPED.iterdir():
      (copy / file.name).write_bytes(file.read_bytes())
    checked, taken = saving.load(copy), saving.load(saving.SHIPPED)
    self.assertEqual(checked.metadata, taken.metadata)
    jax.tree.map(np.testing.assert_array_equal, checked.params, taken.params)

  def test_a_field_added_later_has_its_default(self):
    older = {
      name: value
      for name, value in vars(_ARCHITECTURE).items()
      if name != 'belief_input'
    }
    architecture = py_types.SimpleNamespace(**older)
    saving.save(self.directory, cast(Any, architecture), self.params, _METADATA)
    network = saving.load(self.directory).network
    self.assertIsNone(network.empty_cache(5, 4).evidence)

  @parameterized.parameters(
    ('policy.json', b'', 'policy.json is damaged'),
    ('policy.json', b'[]', 'has format None'),
    ('policy.json', b'{"format": 1}', 'checksum does not match'),
    ('policy.json', b'1' * 10**6, 'policy.json is damaged: .* is too large'),
    ('policy.json', b'1' * (10**6 + 1), 'policy.json is too large'),
    (
      'policy.json',
      b'{"format": 7}',
      'has format 7; this version reads format 1',
    ),
    ('params.npz', b'', 'is damaged: its checksum does not match'),
    ('params.npz', None, 'params.npz cannot be read: No such file'),
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
      self.assertLen(arrays.files, len(jax.tree.leaves(self.params)))

  @parameterized.parameters(
    ({'architecture': None}, 'architecture is None; it must be a section'),
    ({'architecture': {'num_blocks': 10**7}}, 'num_blocks is 10000000; it mus'),
    ({'architecture': {'width': 0}}, 'architecture.width is 0; it must be'),
    ({'architecture': {'width': '8'}}, "width is '8'; it must be a number"),
    ({'architecture': {'width': 9, 'num_heads': 2}}, 'must divide'),
    ({'architecture': {'layers': 1}}, 'architecture.layers is unknown'),
    (
      {'architecture': {'belief_input': ['none']}},
      "must be one of 'none', 'exact'",
    ),
    ({'about': []}, 'about is no object'),
    ({'about': {}}, 'about.scms is None; it must be a section'),
    ({'about': {'scms': 5}}, 'about.scms is 5; it must be a section'),
    ({'about': {'scms': {}}}, 'about.scms.max_variables is missing'),
    (
      {'about': _METADATA | {'horizon': {'num_interventions': 10**12}}},
      'horizon.num_interventions is 1000000000000; it must be at least 1',
    ),
    (
      {'about': _METADATA | {'horizon': {'num_interventions': 'ten'}}},
      "num_interventions is 'ten'; it must be a number",
    ),
    (
      {'about': {'scms': {**_METADATA['scms'], 'graph_weights': [1, 2]}}},
      r'about.scms.graph_weights is \[1, 2\]; it must be a section',
    ),
  )
  def test_a_forged_description_is_an_error(self, content, sentence):
    self._save()
    self._forge(content)
    with self.assertRaisesRegex(
      errors.UsageError, f'policy.json is damaged: .*{sentence}'
    ):
      saving.load(self.directory)

  @parameterized.parameters(
    (lambda x: {n: a for n, a in x.items() if n != 'k'}, None),
    (lambda x: {**x, 'more': x['k']}, 'more is unknown to the network'),
    (
      lambda x: {**x, 'k': x['k'][:1]},
      r'k is float32\[1.*, but the network ha',
    ),
    (lambda x: {**x, 'k': x['k'].astype(np.float64)}, r'k is float64\['),
    (lambda x: {**x, 'k': x['k'].astype('>f4')}, 'k is >f4'),
    (lambda x: {**x, 'k': x['k'] * np.nan}, 'values that are not finite'),
    (lambda x: {**x, 'k': x['k'].astype(object)}, 'k is object'),
  )
  def test_forged_parameters_are_an_error(self, change, sentence):
    self._save()
    arrays = self._arrays()
    key = max(arrays, key=lambda name: arrays[name].ndim)
    arrays = {'k' if n == key else n: array for n, array in arrays.items()}
    arrays = {key if n == 'k' else n: a for n, a in change(arrays).items()}
    self._forge(parameters=_npz(arrays))
    sentence = (sentence or 'k is missing for the network').replace(
      'k is', f'{key} is'
    )
    with self.assertRaisesRegex(
      errors.UsageError, f'params.npz is damaged: .*{sentence}'
    ):
      saving.load(self.directory)

  def test_a_file_that_expands_is_an_error(self):
    self._save()
    arrays = {n: np.zeros_like(a) for n, a in self._arrays().items()}
    name = next(iter(arrays))
    arrays[name] = np.zeros(10**7, np.float32)
    content = _npz(arrays, compressed=True)
    self.assertLess(len(content), 10**6)
    self._forge(parameters=content)
    with self.assertRaisesRegex(
      errors.UsageError, 'its arrays are larger than the file'
    ):
      saving.load(self.directory)

  def test_a_claimed_shape_allocates_nothing(self):
    self._save()
    content = (self.directory / 'params.npz').read_bytes()
    arrays = self._arrays()
    name, array = next((n, a) for n, a in arrays.items() if a.ndim == 1)
    claim = f'({10**15},), }}'
    old = f'({array.size},), }}'
    # The archive has a checksum of each member, which has to fit too.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      members = {x.filename: archive.read(x) for x in archive.infolist()}
    member = members[f'{name}.npy']
    members[f'{name}.npy'] = member.replace(
      old.encode().ljust(len(claim)), claim.encode(), 1
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
      for filename, data in members.items():
        archive.writestr(filename, data)
    self._forge(parameters=stream.getvalue())
    with self.assertRaisesRegex(
      errors.UsageError, r'is float32\[1000000000000000\], but the network'
    ):
      saving.load(self.directory)

  @parameterized.parameters(b'', b'PK', b'[]', b'\x80\x04N.')
  def test_no_archive_is_an_error(self, content):
    self._save()
    self._forge(parameters=content)
    with self.assertRaisesRegex(
      errors.UsageError, 'params.npz is damaged: File is not a zip file'
    ):
      saving.load(self.directory)


if __name__ == '__main__':
  absltest.main()
