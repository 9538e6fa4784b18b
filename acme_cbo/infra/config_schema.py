"""Configs as nested dataclasses whose fields carry ranges and meanings.

A section of a config is a frozen dataclass that derives from `Section`. Each of
its fields is either another section, with a `default_factory`, or made by
`field`, which holds the default, the range and the meaning of a value, or by
`argument`, which holds the meaning alone. Nothing else repeats them: the
checks, the table of `--config_help`, flags and the dataclass itself all come
from there.
"""

from collections.abc import Mapping
import copy
import dataclasses
import functools
import json
import re
import shlex
import textwrap
import typing
from typing import Any, NamedTuple, TypeVar

from acme_cbo.infra import errors

SectionT = TypeVar('SectionT', bound='Section')
_KEY = 'config_schema'


@dataclasses.dataclass(frozen=True)
class Section:
  """Base class of the sections of a config."""

  def check(self, path: str) -> None:
    """Raises unless the values of this section fit each other.

    Args:
      path: path of the section, such as 'config.scms', for error messages.

    Raises:
      errors.UsageError: two values contradict each other.
    """


@dataclasses.dataclass(frozen=True)
class Field:
  """Specification of one value.

  Attributes:
    default: default value; its type is the type of the field. None for a float
      that may be None.
    meaning: description in one line.
    low: lowest number allowed.
    high: highest number allowed.
    options: allowed values, where there are few.
    pattern: regular expression that a text, or each text of a tuple, matches.
    form: the same in words.
    with_arguments: whether an entry of a tuple may also be a pair of a text and
      a dict of keyword arguments.
  """

  default: Any
  meaning: str
  low: float = 0
  high: float = 0
  options: tuple[Any, ...] = ()
  pattern: str = ''
  form: str = ''
  with_arguments: bool = False

  @property
  def kind(self) -> type:
    """Type of the value."""
    return float if self.default is None else type(self.default)

  @property
  def is_number(self) -> bool:
    """Returns whether the value is a number with a range."""
    return self.kind in (int, float)

  def allowed(self) -> str:
    """Returns the allowed values in words."""
    if self.options:
      return ', '.join(map(repr, self.options))
    if self.kind is tuple:
      return f'tuple of {self.form}'
    if self.kind is str:
      return self.form
    spec = ',' if self.kind is int else 'g'
    kind = 'None or float' if self.default is None else self.kind.__name__
    return f'{kind}, {self.low:{spec}} to {self.high:{spec}}'


class Argument(NamedTuple):
  """Specification of a value that is no setting, see `argument`."""

  meaning: str


def field(
  default: Any,
  meaning: str,
  *,
  low: float | None = None,
  high: float | None = None,
  pattern: str = '',
  form: str = '',
  with_arguments: bool = False,
) -> Any:
  """Returns the `dataclasses.field` of one value of a section.

  The allowed values of a text that is one of a few options are those of its
  annotation, `Literal['group', 'batch']`.

  Args:
    default: default value, an int, float, bool, str or tuple; None for a float
      that may be None.
    meaning: description in one line, for `--config_help`.
    low: lowest number allowed; required for numbers.
    high: highest number allowed; required for numbers.
    pattern: regular expression that a text, or each text of a tuple, matches.
    form: what `pattern` asks for, in words, such as "'module:Class'".
    with_arguments: whether an entry of a tuple may also be a pair of a text and
      a dict of keyword arguments.

  Returns:
    The field, with its specification in the metadata.
  """
  specification = Field(
    default=default,
    meaning=meaning,
    low=0 if low is None else low,
    high=0 if high is None else high,
    options=(False, True) if type(default) is bool else (),
    pattern=pattern,
    form=form,
    with_arguments=with_arguments,
  )
  if specification.is_number and (low is None or high is None):
    raise TypeError(f'the number of {meaning!r} needs low and high')
  return dataclasses.field(default=default, metadata={_KEY: specification})


def argument(meaning: str, default: Any = dataclasses.MISSING) -> Any:
  """Returns the `dataclasses.field` of a value that is no setting.

  Neither plain values, nor the checks, nor `fields` have it. It is given by
  keyword: a path, or an object that only Python code makes.

  Args:
    meaning: description in one line.
    default: default value; without it, a value must be given.

  Returns:
    The field, with its meaning in the metadata.
  """
  return dataclasses.field(
    default=default, kw_only=True, metadata={_KEY: Argument(meaning)}
  )


def meanings(cls: type[Section]) -> dict[str, str]:
  """Returns {name: meaning} of the values and arguments of a section."""
  return {
    member.name: member.metadata[_KEY].meaning
    for member in dataclasses.fields(cls)
    if _KEY in member.metadata
  }


@functools.cache
def _members(cls: type[Section]) -> dict[str, Field | type[Section]]:
  """Returns the members of a section by name: its fields and sections."""
  hints = typing.get_type_hints(cls)
  members: dict[str, Field | type[Section]] = {}
  for member in dataclasses.fields(cls):
    hint = hints[member.name]
    specification = member.metadata.get(_KEY)
    if isinstance(specification, Argument):
      continue
    if specification is None:
      members[member.name] = hint
    elif typing.get_origin(hint) is typing.Literal:
      members[member.name] = dataclasses.replace(
        specification, options=typing.get_args(hint)
      )
    else:
      members[member.name] = specification
  return members


def fields(cls: type[Section], prefix: str = '') -> dict[str, Field]:
  """Returns all values of a config by path: {'grpo.beta': Field(...)}.

  Args:
    cls: root section.
    prefix: text before each path.

  Returns:
    The specifications, in the order of their definition.
  """
  table: dict[str, Field] = {}
  for name, member in _members(cls).items():
    if isinstance(member, Field):
      table[f'{prefix}{name}'] = member
    else:
      table |= fields(member, f'{prefix}{name}.')
  return table


def flat(values: Any, path: str = '') -> dict[str, Any]:
  """Returns nested values by their paths: {'grpo.beta': 0.0}."""
  if not isinstance(values, dict):
    return {path: values}
  table: dict[str, Any] = {}
  for name, value in values.items():
    table |= flat(value, _join(path, name))
  return table


def _join(path: str, name: str) -> str:
  return f'{path}.{name}' if path else name


def to_dict(section: Section) -> dict[str, Any]:
  """Returns the values of a section, and of those in it, as plain dicts."""
  return dataclasses.asdict(section)


def from_dict(
  cls: type[SectionT], values: Mapping[str, Any], path: str = 'config'
) -> SectionT:
  """Builds a section from plain values.

  Lists become tuples, so that values read from JSON are the same as before.

  Args:
    cls: class of the section.
    values: value or dict of each member, by name.
    path: path of the section, for error messages.

  Returns:
    The section. Ranges are left to `check`.

  Raises:
    errors.UsageError: a member is missing, unknown, or no section although it
      should be.
  """
  members = _members(cls)
  if not isinstance(values, Mapping):
    raise errors.UsageError(
      f'{path} is {values!r}; it must be a section with the fields '
      f'{", ".join(members)}'
    )
  for name in values:
    if name not in members:
      prefix = f'{path}.'.removeprefix('config.')
      hint = errors.did_you_mean(str(name), list(members), prefix)
      raise errors.UsageError(f'{path}.{name} is unknown{hint}')
  for name in members:
    if name not in values:
      raise errors.UsageError(f'{path}.{name} is missing')
  return cls(
    **{
      name: _immutable(values[name])
      if isinstance(member, Field)
      else from_dict(member, values[name], f'{path}.{name}')
      for name, member in members.items()
    }
  )


def from_partial_dict(cls: type[SectionT], values: Any, path: str) -> SectionT:
  """Builds a section from plain values of some members; others have defaults.

  Args:
    cls: class of the section, in which every member has a default.
    values: value or dict of some members, by name.
    path: path of the section, for error messages.

  Returns:
    The section, in which every value has the type and the range of its field.
    Whether the values fit each other is left to `check`.

  Raises:
    errors.UsageError: a member is unknown, no section although it should be, or
      a value is of the wrong type or out of its range.
  """
  if isinstance(values, Mapping):
    values = _with_defaults(to_dict(cls()), values)
  section = from_dict(cls, values, path)
  _check_values(section, path)
  return section


def _with_defaults(
  defaults: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns nested values, completed by the defaults that they lack."""
  merged = {**defaults, **values}
  for name, default in defaults.items():
    if isinstance(default, dict) and isinstance(merged[name], Mapping):
      merged[name] = _with_defaults(default, merged[name])
  return merged


def _immutable(value: Any) -> Any:
  if isinstance(value, list | tuple):
    return tuple(map(_immutable, value))
  return value


def override(section: SectionT, values: Mapping[str, Any]) -> SectionT:
  """Returns a section with some values replaced.

  Args:
    section: section, left as it is.
    values: new values by path: {'grpo.beta': 0.1}.

  Returns:
    The new section. Ranges are left to `check`.

  Raises:
    errors.UsageError: there is no such path.
  """
  nested = to_dict(section)
  for path, value in values.items():
    *sections, name = path.split('.')
    inner = nested
    for part in sections:
      inner = inner.setdefault(part, {})
    inner[name] = copy.deepcopy(value)
  return from_dict(type(section), nested)


def check(section: Section, path: str = 'config') -> None:
  """Raises unless every value of a section is as it should be.

  Args:
    section: section, and those in it.
    path: path of the section, for error messages; may be empty.

  Raises:
    errors.UsageError: a value is of the wrong type, out of its range, or does
      not fit another one. The sentence names it.
  """
  _check_values(section, path)
  _check_fit(section, path)


def _check_values(section: Section, path: str) -> None:
  for name, member in _members(type(section)).items():
    value = getattr(section, name)
    where = _join(path, name)
    if isinstance(member, Field):
      check_value(where, value, member)
    elif isinstance(value, member):
      _check_values(value, where)
    else:
      raise errors.UsageError(
        f'{where} is {value!r}; it must be a {member.__name__}'
      )


def _check_fit(section: Section, path: str) -> None:
  for name, member in _members(type(section)).items():
    if not isinstance(member, Field):
      _check_fit(getattr(section, name), _join(path, name))
  section.check(path)


def check_value(path: str, value: Any, specification: Field) -> None:
  """Raises unless a value has the type and the range of its field.

  Args:
    path: path of the value, for error messages.
    value: the value.
    specification: specification of the field.

  Raises:
    errors.UsageError: the value does not fit. The sentence names the path.
  """
  if value is None and specification.default is None:
    return
  if specification.options:
    # 1 == True, but 1 is not a truth value.
    if not any(
      type(value) is type(option) and value == option
      for option in specification.options
    ):
      raise errors.UsageError(
        f'{path} is {value!r}; it must be one of {specification.allowed()}'
      )
  elif specification.is_number:
    _check_number(path, value, specification)
  elif specification.kind is tuple:
    _check_texts(path, value, specification)
  elif not isinstance(value, str) or not re.fullmatch(
    specification.pattern, value
  ):
    raise errors.UsageError(
      f'{path} is {value!r}; it must be {specification.form}'
    )


def _check_number(path: str, value: Any, specification: Field) -> None:
  accepted = (int,) if specification.kind is int else (int, float)
  if isinstance(value, bool) or not isinstance(value, accepted):
    raise errors.UsageError(
      f'{path} is {value!r}; it must be a number of type '
      f'{specification.kind.__name__}'
    )
  # NaN is within no range, and every range is finite.
  if not specification.low <= value <= specification.high:
    raise errors.UsageError(
      f'{path} is {value}; it must be at least {specification.low} and at most '
      f'{specification.high}'
    )


def _check_texts(path: str, value: Any, specification: Field) -> None:
  if not isinstance(value, tuple | list):
    raise errors.UsageError(f'{path} is {value!r}; it must be a tuple of texts')
  for entry in value:
    text = entry
    if specification.with_arguments and isinstance(entry, tuple | list):
      text = _check_arguments(path, entry)
    if not isinstance(text, str) or not re.fullmatch(
      specification.pattern, text
    ):
      pair = (
        f', or a pair ({specification.form}, {{argument: value}})'
        if specification.with_arguments
        else ''
      )
      raise errors.UsageError(
        f'{path} has {entry!r}; each entry must be {specification.form}{pair}'
      )


def _check_arguments(path: str, pair: Any) -> Any:
  """Raises unless a pair is (text, {argument: value}); returns the text."""
  if len(pair) != 2 or not isinstance(pair[1], dict):
    raise errors.UsageError(
      f'{path} has {pair!r}; a pair must be a text and a dict of its arguments'
    )
  text, arguments = pair
  for name in arguments:
    if not isinstance(name, str) or not name.isidentifier():
      raise errors.UsageError(
        f'{path} has {text!r} with the argument {name!r}; an argument must be '
        'a name'
      )
  try:
    json.dumps(arguments, allow_nan=False)
  except (TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{path} has {text!r} with arguments that JSON cannot hold: {error}'
    ) from error
  return text


def table(cls: type[Section], flag: str = '--config') -> str:
  """Returns the fields as text of 80 columns.

  Args:
    cls: root section.
    flag: flag that the paths are appended to.

  Returns:
    For each field its flag with the default and the values that are allowed,
    then, indented, its meaning.
  """
  wrap = functools.partial(
    textwrap.fill, width=80, subsequent_indent='    ', break_on_hyphens=False
  )
  lines = []
  for path, specification in fields(cls).items():
    default = shlex.quote(str(specification.default))
    lines.append(wrap(f'{flag}.{path}={default}  ({specification.allowed()})'))
    lines.append(wrap(specification.meaning, initial_indent='    '))
  return '\n'.join(lines)
