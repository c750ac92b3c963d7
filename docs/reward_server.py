"""A remote reward for Attune: replace `score`, keep the rest.

    ATTUNE_REMOTE_REWARD_SECRET=... python reward_server.py 9000

Needs pillow. It speaks plain HTTP on this machine; put a proxy that speaks TLS in front of it for any other.
"""

import base64
import hmac
import io
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image, ImageStat

SECRET = os.environ["ATTUNE_REMOTE_REWARD_SECRET"].encode()


def score(image: Image.Image, prompt: str) -> float:
    """How red the image is; your model goes here."""
    red, green, blue = ImageStat.Stat(image).mean
    return (red - (green + blue) / 2) / 255


class RewardServer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        timestamp = self.headers["X-Attune-Timestamp"]
        signature = hmac.digest(SECRET, timestamp.encode() + b"." + body, "sha256").hex()
        is_signed = hmac.compare_digest(signature, self.headers["X-Attune-Signature"])
        if not is_signed or abs(time.time() - int(timestamp)) > 300:  # an old request may be a replayed one
            return self.send_error(403)
        request = json.loads(body)
        images = [Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB") for image in request["images"]]
        answer = json.dumps({"scores": [score(*pair) for pair in zip(images, request["prompts"], strict=True)]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer.encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), RewardServer).serve_forever()
