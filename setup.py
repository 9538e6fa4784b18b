"""Lists the packages of the wheel; everything else is in pyproject.toml.

configs/ becomes acme_cbo/configs, which pyproject.toml can only express beside
a written list of all packages.
"""

import setuptools

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=['acme_cbo', 'acme_cbo.*']),
    'acme_cbo.configs',
  ],
  package_dir={'acme_cbo.configs': 'configs'},
)
