"""A receiver of webhooks: verifies the signature, knows what it was sent before, and answers before it works.

    pip install standardwebhooks
    ATTUNE_WEBHOOK_SECRET=whsec_... python webhook_receiver.py 9000

Put a server that speaks TLS in front of it: webhooks are posted to https addresses.
"""

import os
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

LARGEST_BYTES = 64 * 1024
webhook = Webhook(os.environ["ATTUNE_WEBHOOK_SECRET"])
events: queue.Queue[dict[str, Any]] = queue.Queue()
seen: set[str] = set()  # a real one keeps these where a restart does not forget them


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > LARGEST_BYTES:
            return self._answer(413)
        body = self.rfile.read(length)  # the very bytes: parsed and written again they have another signature
        try:
            event = webhook.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError):
            return self._answer(401)
        if self.headers["webhook-id"] not in seen:  # each comes at least once, and may come again
            seen.add(self.headers["webhook-id"])
            events.put(event)
        self._answer(204)  # within 15 seconds, so whatever takes long comes later

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def work() -> None:
    while True:
        event = events.get()
        match event["type"]:
            case "job.succeeded" | "job.stopped":
                gain = event["data"]["gain"]
                print(f"{event['data']['id']} is done: {gain}", flush=True)
            case "champion.changed":
                print(f"the champion is {event['data']['checkpoint_id']}", flush=True)
            case other:  # types that are new to this program are no error
                print(other, flush=True)


if __name__ == "__main__":
    threading.Thread(target=work, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
