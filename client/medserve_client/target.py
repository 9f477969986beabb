"""Checks how the address of a server is written: what gRPC would take for another one."""

import re
from ipaddress import IPv6Address


def check_target(target: str) -> None:
    """Checks that an IPv6 address in a target stands in brackets.

    gRPC takes `::1:9101` for an IPv6 address without a port, and calls its port 443.

    Raises:
        ValueError: with the right spelling.
    """
    addresses = re.sub(r"^(dns:(//[^/]*/)?|ipv6:(//)?)", "", target)
    scheme = target.removesuffix(addresses)
    for address in addresses.split(","):
        host, _, port = address.rpartition(":")
        if _is_ipv6(host) and port.isdecimal():
            raise ValueError(f"{target} has an IPv6 address without brackets; write {scheme}[{host}]:{port}")
        if _is_ipv6(address):
            raise ValueError(f"{target} has an IPv6 address without brackets; write {scheme}[{address}]:PORT")


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
