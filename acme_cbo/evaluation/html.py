"""Pages from templates."""

import pathlib
from typing import Any

import jinja2


def render(template: pathlib.Path, **values: Any) -> str:
  """Renders a page.

  Args:
    template: Jinja template in UTF-8.
    **values: what the template names; a name without a value is an error.

  Returns:
    HTML, in which all values are escaped.
  """
  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  text = template.read_text(encoding='utf-8')
  return environment.from_string(text).render(values)
