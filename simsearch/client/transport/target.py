"""Channel target: the one gRPC URI that stands for all addresses of a client.

gRPC takes a list of IP addresses of one family in one URI, and names only one by one. So names in a
list are resolved here, and where both families come together, all are written as IPv6.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from simsearch.errors import BadRequest, Unreachable
from simsearch.telemetry import EventLog

log = EventLog(__name__)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Target:
    """`authority`: the name that servers are called by, and that their certificates must carry;
    empty where gRPC takes it from the URI."""

    uri: str
    authority: str = ""


def check_addresses(addresses: Sequence[str], *, with_tls: bool, server_name: str = "") -> None:
    """Raises BadRequest for no addresses, for one of a list that is not host:port, and for a list
    of several hosts that no single name can be checked for."""
    if not addresses:
        raise BadRequest("a client needs at least one address")
    if len(addresses) == 1:
        return
    hosts = {host_and_port(address)[0] for address in addresses}
    if with_tls and len(hosts) > 1 and not server_name:
        raise BadRequest(
            "these addresses have several hosts, and a channel checks certificates for one name: "
            "give ClientTls(server_name=...), a name in the certificates of all servers, or one "
            "DNS name that stands for all of them"
        )


def target_of(addresses: Sequence[str], server_name: str = "") -> Target:
    """One address is left to gRPC, which resolves its name again when servers move. The names of
    a list are resolved now and once; this may block. Raises Unreachable where none has an IP."""
    if len(addresses) == 1:
        return Target(addresses[0], server_name)
    ips = [ip for address in dict.fromkeys(addresses) for ip in _resolved(address)]
    if not ips:
        raise Unreachable(f"none of {', '.join(addresses)} is a name with an IP address")
    return Target(_uri(list(dict.fromkeys(ips))), server_name or addresses[0])


def host_and_port(address: str) -> tuple[str, int]:
    """Raises BadRequest."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise BadRequest(f"{address!r} is not host:port; an IPv6 address is [::1]:50070")
    return host.strip("[]"), int(port)


def _resolved(address: str) -> list[tuple[IpAddress, int]]:
    host, port = host_and_port(address)
    try:
        return [(ipaddress.ip_address(host), port)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as fault:
        log.warning("address_left_out", address=address, reason=fault.strerror)
        return []
    return [(ipaddress.ip_address(sockaddr[0]), port) for *_, sockaddr in found]


def _uri(ips: Sequence[tuple[IpAddress, int]]) -> str:
    if all(ip.version == 4 for ip, _ in ips):
        return "ipv4:" + ",".join(f"{ip}:{port}" for ip, port in ips)
    return "ipv6:" + ",".join(f"[{_as_ipv6(ip)}]:{port}" for ip, port in ips)


def _as_ipv6(ip: IpAddress) -> str:
    return str(ip) if ip.version == 6 else f"::ffff:{ip}"
