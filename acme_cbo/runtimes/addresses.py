"""Addresses of the process that coordinates a group."""

import errno
import ipaddress
import os
import socket

from acme_cbo.infra import errors


def parse(text: str) -> tuple[str, int]:
  """Returns the host and port of an address.

  Args:
    text: address such as '10.0.0.1:8476', '[::1]:8476' or 'node1:8476'.

  Raises:
    ValueError: the text is not such an address.
  """
  host, _, port = text.rpartition(':')
  host = host.removeprefix('[').removesuffix(']')
  host.encode('idna')  # Checks the lengths of the parts of a name.
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise ValueError(f'{text!r} is not an address')
  return host, int(port)


def to_text(host: str, port: int) -> str:
  """Returns the address of a host and port; `parse` inverts this."""
  return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def listen(host: str, port: int) -> socket.socket:
  """Returns a socket that listens at one address of this machine only.

  Args:
    host: name or address; of a name, the first address that can be used.
    port: port; 0 for any free one.

  Raises:
    errors.UsageError: the host is not this machine, or the port is in use.
  """
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
  except OSError as error:
    raise errors.UsageError(
      f'--coordinator: {host} is not known on this machine: {error.strerror}'
    ) from error
  causes = []
  for family, *_, address in found:
    try:
      return socket.create_server(address, family=family)
    except OSError as error:  # As for a client, the next one may work.
      causes.append(error)
  number = causes[-1].errno or 0
  if number == errno.EADDRNOTAVAIL:
    raise errors.UsageError(
      f'--coordinator: {host} is not an address of this machine; process 0 has '
      'to run, and listens, where that address is'
    ) from causes[-1]
  raise errors.UsageError(
    f'--coordinator: cannot listen on port {port} of {host}: '
    f'{os.strerror(number)}; choose another port'
  ) from causes[-1]


def resolve(host: str) -> str:
  """Returns the address at which `listen` listens for a host."""
  with listen(host, 0) as server:
    return server.getsockname()[0]


def free_port(host: str = '127.0.0.1') -> int:
  """Returns a port of this machine that is free at this moment.

  Args:
    host: see `listen`.
  """
  with listen(host, 0) as server:
    return server.getsockname()[1]


def is_hidden_loopback(host: str, address: str) -> bool:
  """Returns whether a name of a machine is an address that only it can reach.

  Args:
    host: name or address of the machine.
    address: address of that name on the machine itself.
  """
  is_loopback = ipaddress.ip_address(address.partition('%')[0]).is_loopback
  return is_loopback and host not in (address, 'localhost')
