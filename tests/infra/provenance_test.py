"""Tests of the identity of the program."""

import pathlib
import sys
import tempfile
from unittest import mock

from absl.testing import absltest

from acme_cbo.infra import provenance


class DigestTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(provenance.digest.cache_clear)
    self._directory = pathlib.Path(
      self.enterContext(tempfile.TemporaryDirectory())
    )

  def _digest(self):
    provenance.digest.cache_clear()
    return provenance.digest()

  def test_versions_of_packages(self):
    path = [*sys.path, str(self._directory)]
    self.enterContext(mock.patch.object(sys, 'path', path))
    digests = [self._digest()]
    for name in ('one-1.0.dist-info', 'one-1.1.dist-info'):
      for other in self._directory.iterdir():
        other.rmdir()
      (self._directory / name).mkdir()
      digests.append(self._digest())
    self.assertLen({*digests}, 3)

  def test_sources(self):
    self.enterContext(mock.patch.object(provenance, 'PACKAGE', self._directory))
    digests = [self._digest()]
    for name, text in (('a.py', ''), ('a.py', '1'), ('b/a.py', '')):
      path = self._directory / name
      path.parent.mkdir(exist_ok=True)
      path.write_text(text)
      digests.append(self._digest())
    self.assertLen({*digests}, 4)


if __name__ == '__main__':
  absltest.main()
