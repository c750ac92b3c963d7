"""What a client says of an error, without what it was given to get in."""

import os
import re

LONGEST = 300  # characters
HIDDEN = "***"
SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|USERNAME|HEADERS")
IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def without_secrets(text: str) -> str:
    """The first line, without any value that the environment holds as a secret, and no name or password in an address."""
    line = " ".join(text.split("\n")[0].split())
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= 4:
            line = line.replace(value, HIDDEN)
    return IN_ADDRESS.sub(HIDDEN, line)[:LONGEST]
