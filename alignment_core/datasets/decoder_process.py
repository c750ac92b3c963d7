"""A process that decodes and places images: `python -m alignment_core.datasets.decoder_process`, one image after the other.

It imports no torch. Bytes come and go over pipes, and it ends with its stdin, so with whoever started it, however that ended.
"""

import signal
import struct
import sys
from typing import BinaryIO

from alignment_core.datasets.images import decode_image
from alignment_core.datasets.placement import frame_of, placed
from alignment_core.errors import DataError

ASKED = struct.Struct("<II")  # resolution, bytes of the image
DECODED = struct.Struct("<?4I")  # whether it is; then a frame and its pixels, or the bytes of a code and of a message


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: who started this process will end it
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := requests.read(ASKED.size)) == ASKED.size:
        resolution, size = ASKED.unpack(head)
        _answer(requests.read(size), resolution, answers)
        answers.flush()


def _answer(data: bytes, resolution: int, answers: BinaryIO) -> None:
    try:
        image = decode_image(data)
        pixels = placed(image, resolution)
    except DataError as error:
        code, message = error.code.encode(), error.message.encode()
        answers.write(DECODED.pack(False, len(code), len(message), 0, 0) + code + message)
        return
    answers.write(DECODED.pack(True, *frame_of(image, resolution)))
    answers.write(pixels.tobytes())


if __name__ == "__main__":
    main()
