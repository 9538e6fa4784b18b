r"""Suggests the next experiment on your own data, and keeps all outcomes.

acme-cbo study create reactor.study --data=records.csv --target=titer \
  --set='temperature 28..37' --set='feed 0..5 step 0.25 cost 3'
acme-cbo study suggest reactor.study
acme-cbo study observe reactor.study 1 titer=5.2 temperature=33.1
acme-cbo study recommend reactor.study

FILE is the file of a study, or the URL of a PostgreSQL database:

  create FILE      start a study, from flags or from --config=FILE.yaml; with
                   --number=N, also suggest N experiments
  suggest FILE     the next experiments: --number=, --only=, --fixed=; with
                   --gp_bo also what Bayesian optimization would do instead
  observe FILE N NAME=VALUE ...
                   outcome of experiment N
  observe FILE --do=NAME=VALUE,... NAME=VALUE ...
                   outcome of an experiment that was not suggested
  observe FILE --data=outcomes.csv
                   outcomes of many experiments; --data=- reads stdin
  fail FILE N      experiment N has no outcome; or with --do= one that was not
                   suggested
  abandon FILE N   suggestion N will not be carried out
  amend FILE N NAME=VALUE ...
                   correct an outcome, or with --do= all that was set
  withdraw FILE N  experiment N no longer counts; or with --records= records,
                   by their number in `status --json`
  add FILE         add the records of --data=
  change FILE      change settings: --goal=, --set=, --unset=, --budget=, ...
  predict FILE NAME=VALUE ...
                   the target under an intervention
  recommend FILE   the best setting so far, how sure that is, and whether to
                   stop; with --untried also of what was not tried
  causes FILE      which variables cause the target
  status FILE      the study at a glance
  report FILE      a page to show to others: --out=report.html
  export FILE      the whole study as JSON, or its experiments as CSV: --out=
  import FILE      a study from the JSON of --data=; `create` takes a CSV
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import json
import pathlib
import sys
from typing import Any, TYPE_CHECKING

from absl import flags

from acme_cbo.infra import cli
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import jax_environment
from acme_cbo.infra import run_directory

if TYPE_CHECKING:  # Imported late: --help and mistyped flags answer at once.
  from acme_cbo.study import advice
  from acme_cbo.study import study as study_lib

# Reports have this line, so that a new one replaces no other page.
_REPORT_MARK = b'<meta name="generator" content="acme_cbo study">'
_MAX_REPORT_BYTES = 10**8

_CONFIG = flags.DEFINE_string(
  'config', None, 'YAML file with the arguments of a new study.'
)
_DATA = flags.DEFINE_string(
  'data', None, 'Table: a CSV, TSV or Excel file; - is a CSV on stdin.'
)
_TARGET = flags.DEFINE_string('target', None, 'Variable to optimize.')
_GOAL = flags.DEFINE_enum(
  'goal', None, ['maximize', 'minimize'], 'What to do with the target.'
)
_SET = flags.DEFINE_multi_string(
  'set',
  [],
  "A variable that may be set, and to what: 'feed 0..5', 'feed 0..5 step 0.25 "
  "cost 3', 'stirring 200,400,800' or 'coated False,True'. Repeat the flag.",
)
_UNSET = flags.DEFINE_list(
  'unset', None, 'Variables that may no longer be set.'
)
_INTERVENTIONS = flags.DEFINE_string(
  'interventions',
  None,
  "Variables to set at once: their largest number, 'all', or sets such as "
  "'a; b; a,b'.",
)
_CONSTRAINT = flags.DEFINE_multi_string(
  'constraint', [], "Linear constraint, such as '2*a + b <= 10'. Repeatable."
)
_REQUIRED_EDGE = flags.DEFINE_multi_string(
  'required_edge',
  [],
  "A known direct cause, 'dose -> yield'. Repeatable. In `change`, these and "
  '--forbidden_edge replace all known edges; an empty one removes them.',
)
_FORBIDDEN_EDGE = flags.DEFINE_multi_string(
  'forbidden_edge',
  [],
  "What is known to be no direct cause, 'yield -> dose'. Repeatable.",
)
_BUDGET = flags.DEFINE_float('budget', None, 'Total cost of all experiments.')
_EXPERIMENTS = flags.DEFINE_integer(
  'experiments', None, 'Maximum number of experiments.'
)
_COLUMNS = flags.DEFINE_list(
  'columns', None, 'Columns of the table to use; all that are numeric.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the suggestions.')
_POLICY = flags.DEFINE_string(
  'policy', None, 'Directory of a trained policy; the shipped one by default.'
)
_NAME = flags.DEFINE_string(
  'name', 'study', 'Name of the study, where a database holds several.'
)
_NUMBER = flags.DEFINE_integer('number', 1, 'Number of suggestions.')
_ONLY = flags.DEFINE_list('only', None, 'Variables that may be set this time.')
_FIXED = flags.DEFINE_list('fixed', None, 'NAME=VALUE to set in any case.')
_GP_BO = flags.DEFINE_bool(
  'gp_bo',
  False,
  'Say beside a suggestion what Bayesian optimization would do instead.',
)
_UNTRIED = flags.DEFINE_bool(
  'untried',
  False,
  'Also recommend what was not tried, if it is predicted to be better.',
)
_DO = flags.DEFINE_list('do', None, 'NAME=VALUE of what was set.')
_RECORDS = flags.DEFINE_integer(
  'records', None, 'Number of the records to withdraw.'
)
_REASON = flags.DEFINE_string('reason', None, 'Why, for the record.')
_OUT = flags.DEFINE_string('out', None, 'File to write: .html, .json or .csv.')
_JSON = flags.DEFINE_bool('json', False, 'Print JSON instead of tables.')

# Flags of a new study.
_SETTINGS = (
  'target goal set interventions constraint required_edge forbidden_edge '
  'budget experiments columns seed policy'
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv, takes_arguments=True)


def main(argv: Sequence[str]) -> None:
  """Carries out the action that the first argument names."""
  _, *words = argv
  if not words:
    raise errors.UsageError(
      f'name an action: {", ".join(_ACTIONS)}; --help explains them'
    )
  action, *words = words
  if action not in _ACTIONS:
    hint = errors.did_you_mean_or_options(action, [*_ACTIONS])
    raise errors.UsageError(f'there is no action {action!r}{hint}')
  if not words:
    raise errors.UsageError(f'name the file of the study: study {action} FILE')
  location, *words = words
  function, allowed = _ACTIONS[action]
  for flag in (*_SETTINGS.split(), *_OTHERS.split()):
    if flags.FLAGS[flag].present and flag not in allowed.split():
      raise errors.UsageError(f'--{flag} is no flag of study {action}')
  jax_environment.set_defaults(small_programs=True)
  function(location, words)


def _create(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  if _CONFIG.value is not None:
    for flag in ('data', *_SETTINGS.split()):
      if flags.FLAGS[flag].present:
        raise errors.UsageError(
          f'--config and --{flag} exclude each other: write it into the file'
        )
    from acme_cbo.study import config  # noqa: PLC0415

    arguments = config.read(_CONFIG.value)
  else:
    arguments = {**_settings(), 'data': _table()}
    for flag in ('target', 'set'):
      if not flags.FLAGS[flag].present:
        raise errors.UsageError(
          f'a new study needs --{flag}, or --config=FILE.yaml with everything'
        )
  study = _study().Study.create(location, name=_NAME.value, **arguments)
  _tell(study)
  if flags.FLAGS['number'].present:
    try:
      _print_suggestions(study)
    except errors.UsageError as error:
      raise errors.UsageError(
        f'the study was created, but has no suggestion: {error}'
      ) from error
  else:
    _print_status(study)


def _suggest(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  _print_suggestions(_open(location))


def _announce_wait() -> None:
  """Says on a terminal that the policy takes a while to start."""
  if sys.stderr.isatty():
    print('starting the policy (a few seconds) …', file=sys.stderr)


def _print_suggestions(study: study_lib.Study) -> None:
  _announce_wait()
  trials = study.suggest(
    _NUMBER.value,
    only=_ONLY.value,
    fixed=None if _FIXED.value is None else _pairs(_FIXED.value),
    gp_bo=_GP_BO.value,
  )
  from acme_cbo.study import terminal  # noqa: PLC0415

  _print(
    terminal.suggestions(study.state, trials),
    [_trial_json(trial) for trial in trials],
  )


def _observe(location: str, words: Sequence[str]) -> None:
  study = _open(location)
  if _DATA.value is not None:
    _no_more(words)
    numbers = study.observe_table(_table())
  elif _DO.value is not None and (not words or '=' in words[0]):
    numbers = [study.observe(None, _pairs(words), _pairs(_DO.value))]
  else:
    number, outcome = _number(words)
    do = None if _DO.value is None else _pairs(_DO.value)
    numbers = [study.observe(number, _pairs(outcome), do)]
  _tell(study)
  listed = errors.format_list([*map(str, numbers)], 20, 'more', ', ')
  _print_stored(f'experiment {listed}', {'experiments': numbers})


def _fail(location: str, words: Sequence[str]) -> None:
  study = _open(location)
  if _DO.value is not None:
    _no_more(words)
    number = study.fail(None, _pairs(_DO.value), reason=_REASON.value or '')
  else:
    number, rest = _number(words)
    _no_more(rest)
    study.fail(number, reason=_REASON.value or '')
  _tell(study)
  _print_stored(f'experiment {number}, failed', {'experiment': number})


def _abandon(location: str, words: Sequence[str]) -> None:
  number, rest = _number(words)
  _no_more(rest)
  _open(location).abandon(number, reason=_REASON.value or '')
  _print_stored(f'experiment {number}, abandoned', {'experiment': number})


def _withdraw(location: str, words: Sequence[str]) -> None:
  number = None
  if _RECORDS.value is None:
    number, words = _number(words)
  _no_more(words)
  _open(location).withdraw(
    number, records=_RECORDS.value, reason=_REASON.value or ''
  )
  what = (
    f'records {_RECORDS.value}' if number is None else f'experiment {number}'
  )
  _print_stored(
    f'{what}, withdrawn', {'experiment': number, 'records': _RECORDS.value}
  )


def _amend(location: str, words: Sequence[str]) -> None:
  study = _open(location)
  number, outcome = _number(words)
  do = None if _DO.value is None else _pairs(_DO.value)
  if not outcome and do is None:
    raise errors.UsageError('give NAME=VALUE of what to correct, or --do=')
  before = study.state.experiments.get(number)
  study.amend(
    number,
    _pairs(outcome) if outcome else None,
    do,
    reason=_REASON.value or '',
  )
  after = study.state.experiments[number]
  changes = []
  if before is not None:
    changes = [
      f'{name} {before.values.get(name, "none")} -> '
      f'{after.values.get(name, "none")}'
      for name in {**before.values, **after.values}
      if before.values.get(name) != after.values.get(name)
    ]
    if before.do.keys() != after.do.keys():
      changes.append(f'what was set: {", ".join(after.do)}')
  _print_stored(
    f'experiment {number}, {", ".join(changes) or "as before"}',
    {'experiment': number},
  )


def _add(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  table = _table()
  if table is None:
    raise errors.UsageError('name the table: --data=records.csv')
  study = _open(location)
  study.add_records(table)
  _tell(study)
  _print_status(study)


def _change(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  changes = _settings()
  if _UNSET.value:
    changes['variables'] = {
      **changes.get('variables', {}),
      **dict.fromkeys(_UNSET.value),
    }
  if not changes:
    raise errors.UsageError('name what to change, such as --budget=40')
  study = _open(location)
  study.change(**changes)
  _print_status(study)


def _predict(location: str, words: Sequence[str]) -> None:
  study = _open(location)
  do = _pairs(words)
  one = study.predict(do)
  from acme_cbo.study import terminal  # noqa: PLC0415

  _print(
    terminal.predicted(study.state, do, one),
    {'do': do, **one._asdict()},
  )


def _recommend(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  study = _open(location)
  _announce_wait()
  best = study.recommend(untried=_UNTRIED.value)
  from acme_cbo.study import terminal  # noqa: PLC0415

  # The advice to stop is about what was tried.
  is_tried = best is not None and best.number is not None
  stop = study.stop_advice() if is_tried else None
  value = None
  if best is not None:
    value = best._asdict()
    for name in ('prediction', 'nothing'):
      if value[name] is not None:
        value[name] = value[name]._asdict()
    value['advice'] = stop._asdict() if stop else None
  _print(terminal.recommended(study.state, best, stop), value)


def _causes(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  study = _open(location)
  _announce_wait()
  found = study.causes()
  from acme_cbo.study import terminal  # noqa: PLC0415

  _print(terminal.causes(found, study.settings.target), found)


def _status(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  _print_status(_open(location))


def _export(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  out = _OUT.value
  if out is None or pathlib.Path(out).suffix not in ('.json', '.csv'):
    raise errors.UsageError('name the file to write, --out=FILE.json or .csv')
  path = _new_file(out)
  study = _open(location)
  run_directory.write_text(
    path, study.to_json() if path.suffix == '.json' else study.to_csv()
  )
  print(f'wrote {path}')


def _new_file(out: str, replaces: bytes | None = None) -> pathlib.Path:
  """Returns the path of --out; raises unless it can be created.

  Args:
    out: value of the flag.
    replaces: text of an older file that may be replaced.
  """
  path = pathlib.Path(out)
  if not path.parent.is_dir():
    raise errors.UsageError(f'--out={out}: there is no directory {path.parent}')
  if not path.exists():
    return path
  if replaces and replaces in files.read_bytes(path, _MAX_REPORT_BYTES):
    return path
  raise errors.UsageError(f'--out={out} exists; name a new file')


def _report(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  if _OUT.value is None or not _OUT.value.endswith('.html'):
    raise errors.UsageError('name the file to write, --out=FILE.html')
  path = _new_file(_OUT.value, replaces=_REPORT_MARK)
  study = _open(location)
  _announce_wait()
  study.report(path)
  print(f'wrote {path}')


def _import(location: str, words: Sequence[str]) -> None:
  _no_more(words)
  if _DATA.value is None:
    raise errors.UsageError('name the JSON file: --data=FILE.json')
  study = _study().Study.from_json(
    pathlib.Path(_DATA.value), location, name=_NAME.value
  )
  _print_status(study)


_OTHERS = (
  'unset records config data number only fixed gp_bo untried do reason out json'
)
_ACTIONS: Mapping[str, tuple[Callable[[str, Sequence[str]], None], str]] = {
  'create': (_create, f'config data {_SETTINGS} number json'),
  'suggest': (_suggest, 'number only fixed gp_bo json'),
  'observe': (_observe, 'do data json'),
  'fail': (_fail, 'do reason json'),
  'abandon': (_abandon, 'reason json'),
  'amend': (_amend, 'do reason json'),
  'withdraw': (_withdraw, 'records reason json'),
  'add': (_add, 'data json'),
  'change': (
    _change,
    'goal set unset interventions constraint required_edge forbidden_edge '
    'budget experiments json',
  ),
  'predict': (_predict, 'json'),
  'recommend': (_recommend, 'untried json'),
  'causes': (_causes, 'json'),
  'status': (_status, 'json'),
  'report': (_report, 'out'),
  'export': (_export, 'out'),
  'import': (_import, 'data json'),
}


def _study():
  """Returns the module of studies."""
  from acme_cbo.study import study  # noqa: PLC0415

  return study


def _open(location: str) -> study_lib.Study:
  return _study().Study.open(location, name=_NAME.value)


def _settings() -> dict[str, Any]:
  """Returns the arguments of a new study that the flags give, None if not."""
  from acme_cbo.study import config  # noqa: PLC0415

  return {
    name: value
    for name, value in {
      'target': _TARGET.value,
      'goal': _GOAL.value,
      'variables': config.variables(_SET.value) if _SET.value else None,
      'interventions': config.interventions(_INTERVENTIONS.value),
      'constraints': _CONSTRAINT.value or None,
      'edges': {
        kind: [*filter(None, listed)]
        for kind, listed in (
          ('required', _REQUIRED_EDGE.value),
          ('forbidden', _FORBIDDEN_EDGE.value),
        )
        if listed
      }
      or None,
      'budget': _BUDGET.value,
      'experiments': _EXPERIMENTS.value,
      'columns': _COLUMNS.value,
      'seed': _SEED.value if flags.FLAGS['seed'].present else None,
      'policy': _POLICY.value,
    }.items()
    if value is not None
  }


def _table() -> Any:
  """Returns the table of --data, or None."""
  return sys.stdin.buffer if _DATA.value == '-' else _DATA.value


def _pairs(words: Sequence[str]) -> dict[str, float | bool]:
  """Parses NAME=VALUE words."""
  from acme_cbo.study import config  # noqa: PLC0415

  pairs: dict[str, float | bool] = {}
  for word in words:
    name, equals, text = word.rpartition('=')
    name = name.strip()
    if not equals or not name:
      raise errors.UsageError(f'{word!r} is not NAME=VALUE')
    if name in pairs:
      raise errors.UsageError(f'{name!r} is given twice')
    value = config.number(text)
    if value is None:
      raise errors.UsageError(
        f'{word!r}: {text!r} is no number, True or False'
        + ('; write decimal points' if ',' in text else '')
      )
    pairs[name] = value
  if not pairs:
    raise errors.UsageError('give one or more NAME=VALUE')
  return pairs


def _number(words: Sequence[str]) -> tuple[int, list[str]]:
  """Returns the number of an experiment, and the words after it."""
  if not words or not words[0].isascii() or not words[0].isdecimal():
    raise errors.UsageError(
      'name the number of the experiment, as `suggest` has shown it'
    )
  return int(words[0]), [*words[1:]]


def _no_more(words: Sequence[str]) -> None:
  if words:
    raise errors.UsageError(
      f'unexpected argument {words[0]!r}; flags begin with --'
    )


def _tell(study: study_lib.Study) -> None:
  """Prints the warnings about tables."""
  from acme_cbo.study import terminal  # noqa: PLC0415

  for sentence in study.warnings:
    print(terminal.warning(sentence), file=sys.stderr)


def _print_status(study: study_lib.Study) -> None:
  from acme_cbo.study import terminal  # noqa: PLC0415

  state = study.state
  _print(
    terminal.status(state),
    {
      'target': state.settings.target,
      'goal': state.settings.goal,
      'records': state.num_records,
      'observed': len(state.observed),
      'pending': [one.number for one in state.pending],
      'failed': len(state.failed),
      'spent': state.spent,
      'budget': state.settings.budget,
      'edges': state.settings.edges,
    },
  )


def _trial_json(trial: advice.Trial) -> dict[str, Any]:
  return {
    'number': trial.number,
    'do': trial.do,
    'why': trial.why,
    'warnings': trial.warnings,
    **({} if trial.gp_bo is None else {'gp_bo': trial.gp_bo}),
    **(trial.prediction._asdict() if trial.prediction else {}),
  }


def _print_stored(what: str, value: Any) -> None:
  from acme_cbo.study import terminal  # noqa: PLC0415

  _print(terminal.message(f'stored: {what}'), value)


def _print(table: str, value: Any) -> None:
  print(json.dumps(value, allow_nan=False) if _JSON.value else table)
