"""Events of studies: their checks, and their form as text and as bytes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
import datetime
import io
import json
import math
import re
from typing import Any, NamedTuple
import zlib

import numpy as np

from acme_cbo.infra import errors
from acme_cbo.infra import files

# Version of the tables and of exported logs.
VERSION = 1
# Advice where something is damaged.
RESTORE = 'restore it from a copy'
_FORMAT = 'acme_cbo study'
_MAX_PAYLOAD_BYTES = 10**7
_MAX_BLOB_BYTES = 10**8
# Numbers in a packed array; without compression, they fit into a blob.
_MAX_NUMBERS = 10**7
_MAX_HEADER_BYTES = 1000

_KIND = re.compile('[a-z][a-z0-9_]{0,39}')
_ID = re.compile('[0-9a-f]{32}')
_TIME = re.compile(
  r'[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}\+00:00'
)
# Header of .npy files of float64 arrays in C order. Numpy's parser of headers
# evaluates them as Python literals.
_NPY_HEADER = re.compile(
  rb"\x93NUMPY\x01\x00..\{'descr': '<f8', 'fortran_order': False, "
  rb"'shape': \(([0-9, ]{0,200})\), \} *\n",
  re.DOTALL,
)


class Event(NamedTuple):
  """An event of a log.

  Attributes:
    number: position in the log, counted from 0.
    kind: short identifier; 'created' for event 0, and for no other.
    payload: JSON object.
    time: time of the first attempt to append it, in UTC, ISO 8601.
    id: 32 hexadecimal digits, unique in the log.
    blob: binary attachment, or None.
  """

  number: int
  kind: str
  payload: dict[str, Any]
  time: str
  id: str
  blob: bytes | None = None


def parse(
  number: Any, kind: Any, payload: Any, time: Any, id: Any, blob: Any
) -> Event:
  """Returns an event; raises a `ValueError` if a value is invalid.

  Args:
    number: number of the event.
    kind: its kind.
    payload: its payload, as a JSON text.
    time: its time.
    id: its id.
    blob: its binary attachment, or None.
  """
  if type(number) is not int or number < 0:
    raise ValueError(f'the number is {number!r:.40}, and no integer from 0')
  if not isinstance(kind, str) or not _KIND.fullmatch(kind):
    raise ValueError(
      f'the kind is {kind!r:.60}; use at most 40 lower-case letters, digits '
      'and underscores, and begin with a letter'
    )
  if (kind == 'created') != (number == 0):
    raise ValueError(
      f"the kind of event {number} is {kind!r}; only event 0 is 'created'"
    )
  if not isinstance(time, str) or not _TIME.fullmatch(time):
    raise ValueError(f'the time is {time!r:.60}, and no UTC in ISO 8601')
  datetime.datetime.fromisoformat(time)
  if not isinstance(id, str) or not _ID.fullmatch(id):
    raise ValueError(f'the id is {id!r:.60}, and no 32 hexadecimal digits')
  if blob is not None and not isinstance(blob, bytes):
    raise ValueError(f'the blob is of the type {type(blob).__name__}')
  if blob is not None and len(blob) > _MAX_BLOB_BYTES:
    raise ValueError(
      f'the blob has {len(blob):,} bytes; at most {_MAX_BLOB_BYTES:,} are '
      'allowed'
    )
  return Event(number, kind, _parse_payload(payload), time, id, blob)


def _parse_payload(payload: Any) -> dict[str, Any]:
  """Returns the object in a JSON text; raises a `ValueError` if it is none."""
  if not isinstance(payload, str):
    raise ValueError(f'the payload is of the type {type(payload).__name__}')
  content = payload.encode()
  if len(content) > _MAX_PAYLOAD_BYTES:
    raise ValueError(
      f'the payload has {len(content):,} bytes; at most '
      f'{_MAX_PAYLOAD_BYTES:,} are allowed'
    )
  value = files.parse_json(content)
  if not isinstance(value, dict):
    raise ValueError('the payload is no JSON object')
  if '\\ud' in payload.lower():
    # Half of a surrogate pair cannot be encoded.
    json.dumps(value, ensure_ascii=False).encode()
  return value


def to_json(payload: Any) -> str:
  """Returns a payload as JSON; raises a `ValueError` if it is none."""
  try:
    return json.dumps(payload, allow_nan=False)
  except (TypeError, ValueError, RecursionError) as error:
    raise ValueError(
      f'the payload is not JSON with finite numbers: {error}'
    ) from error


def check_version(where: str, version: Any) -> None:
  """Raises unless the tables are those of this version of the package."""
  if type(version) is not int or version < 1:
    raise errors.UsageError(
      f'{where} is damaged: it has no version of its tables; {RESTORE}'
    )
  if version > VERSION:
    raise errors.UsageError(
      f'{where} has tables of version {version}, and this version of acme_cbo '
      f'reads at most {VERSION}; nothing was changed: update acme_cbo'
    )


def to_export(events: Sequence[Event]) -> str:
  """Returns events as a JSON text, for `from_export`."""
  exported = []
  for event in events:
    values = event._asdict()
    if event.blob is None:
      del values['blob']
    else:
      values['blob'] = base64.b64encode(event.blob).decode()
    exported.append(values)
  export = {'format': _FORMAT, 'version': VERSION, 'events': exported}
  return json.dumps(export, allow_nan=False)


def from_export(text: str) -> list[Event]:
  """Returns the events of an exported log; raises a `ValueError` if damaged."""
  export = files.parse_json(text.encode())
  if not isinstance(export, dict) or export.get('format') != _FORMAT:
    raise ValueError(f'its format is not {_FORMAT!r}')
  check_version('the exported log', export.get('version'))
  items = export.get('events')
  if not isinstance(items, list) or not items:
    raise ValueError('it has no list of events')
  events = []
  for number, item in enumerate(items):
    try:
      events.append(_parse_exported(number, item))
    except ValueError as error:
      raise ValueError(f'event {number}: {error}') from error
  if len({event.id for event in events}) < len(events):
    raise ValueError('two events have one id')
  return events


def _parse_exported(number: int, item: Any) -> Event:
  """Returns an event of an exported log; raises a `ValueError` if damaged."""
  if not isinstance(item, dict):
    raise ValueError('it is no JSON object')
  values = dict(item)
  values['payload'] = to_json(values.get('payload'))
  if 'blob' in values:
    if not isinstance(values['blob'], str):
      raise ValueError('the blob is no text')
    values['blob'] = base64.b64decode(values['blob'], validate=True)
  if unknown := values.keys() - set(Event._fields):
    raise ValueError(f'it has the unknown field {min(unknown)!r:.60}')
  fields = [values.get(name) for name in Event._fields]
  if values.get('number') != number:
    raise ValueError(f'it has the number {values.get("number")!r:.40}')
  return parse(*fields)


def pack_array(array: np.ndarray) -> bytes:
  """Compresses an array, bit for bit, as the blob of an event.

  Args:
    array: float64 array; values that are not finite are kept.

  Returns:
    A .npy file, compressed with zlib.

  Raises:
    errors.UsageError: the array is of another type or too large.
  """
  if array.dtype != np.float64 or array.size > _MAX_NUMBERS:
    raise errors.UsageError(
      f'an array of {array.size:,} numbers of {array.dtype} cannot be stored; '
      f'at most {_MAX_NUMBERS:,} of float64 can'
    )
  buffer = io.BytesIO()
  np.save(buffer, np.asarray(array, order='C'), allow_pickle=False)
  return zlib.compress(buffer.getvalue())


def unpack_array(blob: bytes, shape: tuple[int, ...]) -> np.ndarray:
  """Returns the array that `pack_array` compressed.

  Args:
    blob: result of `pack_array`.
    shape: shape that the array has to have.

  Returns:
    A read-only float64 array.

  Raises:
    errors.UsageError: the blob is damaged, or the shape differs.
  """
  size = math.prod(shape)
  if min(shape, default=0) < 0 or size > _MAX_NUMBERS:
    raise errors.UsageError(
      f'an array cannot have the shape {shape}; at most {_MAX_NUMBERS:,} '
      'numbers are allowed'
    )
  decompressor = zlib.decompressobj()
  try:
    # A small blob may expand to a thousand times its size.
    content = decompressor.decompress(blob, _MAX_HEADER_BYTES + 8 * size)
  except zlib.error as error:
    raise errors.UsageError(f'the array is damaged: {error}') from error
  header = _NPY_HEADER.match(content)
  if header is None:
    raise errors.UsageError('the array is damaged: it is no array of float64')
  stored = tuple(map(int, header[1].replace(b',', b' ').split()))
  if stored != shape:
    raise errors.UsageError(
      f'the array has the shape {stored}; it has to be {shape}'
    )
  if (
    not decompressor.eof
    or decompressor.unused_data
    or len(content) != header.end() + 8 * size
  ):
    raise errors.UsageError(
      'the array is damaged: it is shorter or longer than its shape'
    )
  return np.frombuffer(content, '<f8', size, header.end()).reshape(shape)
