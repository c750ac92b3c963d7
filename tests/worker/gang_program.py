"""What the launchers' tests train with: `gang_program.py PROCESSES BEHAVIOUR`; no import that takes time.

The first process speaks; the others only live, each in a session of its own as torchrun's ranks do.
"""

import json
import os
import signal
import subprocess
import sys
import time

processes, behaviour = int(sys.argv[1]), sys.argv[2]
asked = []


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def step(number: int) -> None:
    say(type="step_completed", step=number, total_steps=3, metrics={"loss": 0.5}, step_seconds=0.01)


signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "deaf" else lambda *_: asked.append(True))
for _ in range(processes - 1):
    subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
print("a line of the log", file=sys.stderr, flush=True)
for number in (1, 2, 3):
    step(number)
match behaviour:
    case "complete":
        say(type="run_completed", step=3)
    case "crash":
        print("it met the unforeseen", file=sys.stderr, flush=True)
        sys.exit(3)
    case "go_on" | "deaf":
        while not asked:
            time.sleep(0.02)
        say(type="run_stopped", step=3)
        sys.exit(75)
    case "leave":
        say(type="run_stopped", step=3)
        os._exit(75)
