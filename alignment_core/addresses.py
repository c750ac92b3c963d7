"""Where a URL that somebody else wrote may lead: every address of its host is looked at, and the connection goes to one that was.

A name that changes its mind between the look and the use gains nothing, since it is resolved once. TLS still asks for a certificate
of the name: whoever connects sends `Host` and the server name beside the address (`Pinned`).
"""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"https": 443, "http": 80}


def is_public(address: Address) -> bool:
    """Whether anyone may reach the address: not private, loopback, link-local, multicast, nor one of these in disguise."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def literal_of(host: str) -> Address | None:
    """The address that a URL names itself, and not by a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def addresses_of(url: str) -> list[Address]:
    """Every address of the URL's host, each once; raises `OSError` where it has none."""
    parts = urlsplit(url)
    found = socket.getaddrinfo(parts.hostname or "", parts.port or _PORTS[parts.scheme], type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


@dataclass(frozen=True)
class Pinned:
    """A URL with an address in place of its name, and what tells the server there by which name it is meant."""

    url: str
    host_header: str
    server_name: str

    @classmethod
    def to(cls, url: str, address: Address) -> "Pinned":
        parts = urlsplit(url)
        host = f"[{address}]" if address.version == 6 else str(address)
        netloc = host if parts.port is None else f"{host}:{parts.port}"
        return cls(parts._replace(netloc=netloc).geturl(), parts.netloc.rpartition("@")[2], parts.hostname or "")
