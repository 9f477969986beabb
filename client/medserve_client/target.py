"""Parses gRPC targets, validates their spelling and detects loopback and link-local hosts."""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import unquote

_LOCAL_SCHEMES = ("unix:", "unix-abstract:", "vsock:")
# Schemes that name hosts: https://github.com/grpc/grpc/blob/master/doc/naming.md
_SCHEME = re.compile(r"(?:dns|ipv4|ipv6):(?://[^/]*)?/?")
_HOST_AND_PORT = re.compile(r"\[(?P<ip6>[^\]]*)\](?::(?P<ip6_port>\d+))?|(?P<host>[^:]*):(?P<port>\d+)")
_DEFAULT_PORT = 443


def addresses(target: str) -> list[tuple[str, int]]:
    """Returns the hosts and ports in a target without resolving names; empty for a local socket, e.g. unix:."""
    if target.startswith(_LOCAL_SCHEMES):
        return []
    return [_address(text) for text in unquote(_SCHEME.sub("", target, count=1)).split(",")]


def _address(text: str) -> tuple[str, int]:
    if not (match := _HOST_AND_PORT.fullmatch(text)):
        return text, _DEFAULT_PORT
    return match["ip6"] or match["host"] or "", int(match["ip6_port"] or match["port"] or _DEFAULT_PORT)


def check_target(target: str) -> None:
    """Checks that a target is not a URL and that its IPv6 addresses are in brackets.

    gRPC parses `::1:9101` as an IPv6 address without a port and connects to port 443.

    Raises:
        ValueError: it is malformed; the message has the correct spelling.
    """
    if match := re.match(r"https?://", target, re.IGNORECASE):
        raise ValueError(f"{target} is a URL; write HOST:PORT, without {match[0]}")
    scheme = match[0] if (match := _SCHEME.match(target)) else ""
    for address in target.removeprefix(scheme).split(","):
        host, _, port = address.rpartition(":")
        if _is_ipv6(host) and port.isdecimal():
            raise ValueError(f"{target} has an IPv6 address without brackets; write {scheme}[{host}]:{port}")
        if _is_ipv6(address):
            raise ValueError(f"{target} has an IPv6 address without brackets; write {scheme}[{address}]:PORT")


def is_loopback(target: str) -> bool:
    """Returns whether all hosts of a target are on this machine."""
    return all(_is_loopback(host) for host, _ in addresses(target))


def never_proxied(target: str) -> bool:
    """Returns whether a host of a target is loopback or link-local, where a proxy would reach a different host."""
    found = addresses(target)
    return not found or any(_is_loopback(host) or _is_link_local(host) for host, _ in found)


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _numeric(host)
    return address is not None and address.is_loopback


def _is_link_local(host: str) -> bool:
    # Connecting to the unspecified address, 0.0.0.0 or ::, reaches this machine.
    address = _numeric(host)
    return address is not None and (address.is_link_local or address.is_unspecified)


def _numeric(host: str) -> IPv4Address | IPv6Address | None:
    """Parses a numeric host address; None for a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return _short_ipv4(host)
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _short_ipv4(host: str) -> IPv4Address | None:
    """Parses an abbreviated IPv4 address that resolvers accept, e.g. 127.1."""
    if not re.fullmatch(r"[0-9a-fA-FxX.]+", host):
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _is_ipv6(text: str) -> bool:
    return ":" in text and _numeric(text) is not None
