"""A process of the local server: started in its own group, tied to this one, with a log file."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attune.tether import tethered


class LocalProcess:
    """A named background process whose output goes to `log_path`. `stop` ends it and everything in its group."""

    def __init__(self, name: str, command: Sequence[str], *, log_path: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                tethered(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended; it stays a zombie until `wait`, so that its group id cannot be anyone else's."""
        if self._popen.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None

    def ask_to_stop(self) -> None:
        """SIGTERM to its group; it is not waited for."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its group; it is not waited for."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout_seconds: float) -> int:
        """Its exit code; what is left of its group is killed after `timeout_seconds`, or when it has ended."""
        deadline = time.monotonic() + timeout_seconds
        while self.is_running and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()
        return self._popen.wait()

    def log_tail(self, num_lines: int = 20) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-num_lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.returncode is not None:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return  # all of its group has ended
