"""OpenStack Swift with its S3 API: four processes on free ports, one device, one user."""

import contextlib
import getpass
import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.servers.process import folder, free_port, running, wait_until_serving

SWIFT_CONF = """\
[swift-hash]
swift_hash_path_suffix = attune-tests
"""

STORAGE_CONF = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {home}
devices = {home}/devices
mount_check = false
disable_fallocate = true

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY_CONF = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {home}

[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats s3api tempauth bulk slo dlo proxy-server

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
"""

RINGS = """\
import sys
from swift.common.ring import RingBuilder
home = sys.argv[1]
for kind, port in zip(("account", "container", "object"), sys.argv[2:]):
    builder = RingBuilder(2, 1, 0)
    place = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1.0}
    builder.add_dev({"id": 0, "replication_ip": "127.0.0.1", "replication_port": int(port), "meta": "", **place})
    builder.rebalance()
    builder.get_ring().save(f"{home}/{kind}.ring.gz")
"""


@dataclass
class S3Server:
    """Where the server is and the keys to it."""

    endpoint_url: str
    access_key_id: str = "test:tester"
    secret_access_key: str = "testing"
    region: str = "us-east-1"
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def make_bucket(self) -> str:
        """Name of a new, empty bucket."""
        name = f"attune-test-{next(self._numbers)}"
        self.client().create_bucket(Bucket=name)
        return name


@contextlib.contextmanager
def swift() -> Iterator[S3Server]:
    ports = {kind: free_port() for kind in ("account", "container", "object", "proxy")}
    with folder("swift") as home, contextlib.ExitStack() as stack:
        _configure(home, ports)
        started = [(stack.enter_context(_server(home, kind)), port, _log(home, kind)) for kind, port in ports.items()]
        for process, port, log in started:
            wait_until_serving(process, port, log)
        yield S3Server(f"http://127.0.0.1:{ports['proxy']}")


def _server(home: Path, kind: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    program = Path(sys.executable).parent / f"swift-{kind}-server"
    return running([sys.executable, program, home / f"{kind}.conf", "-v"], _log(home, kind))


def _log(home: Path, kind: str) -> Path:
    return home / f"{kind}.log"


def _configure(home: Path, ports: dict[str, int]) -> None:
    (home / "devices" / "d1").mkdir(parents=True)
    (home / "swift.conf").write_text(SWIFT_CONF)
    for kind, port in ports.items():
        template = PROXY_CONF if kind == "proxy" else STORAGE_CONF
        values = {"port": port, "user": getpass.getuser(), "home": home, "kind": kind}
        (home / f"{kind}.conf").write_text(template.format(**values))
    storage_ports = [str(ports[kind]) for kind in ("account", "container", "object")]
    subprocess.run([sys.executable, "-c", RINGS, str(home), *storage_ports], check=True, capture_output=True)
