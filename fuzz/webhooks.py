"""Notes what Keyward delivers, or verifies it by PyPI's standardwebhooks. fuzz/webhooks.sh runs it."""

import http.server
import json
import os
import sys


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        with open(sys.argv[3], "a") as file:
            print(json.dumps({"headers": dict(self.headers.items()), "body": body}), file=file)
        self.do_GET()

    def log_message(self, *_):
        pass


def verify(deliveries):
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    def accepts(secret, headers, body):
        try:
            return Webhook(secret).verify(body, headers) == json.loads(body)
        except WebhookVerificationError:
            return False

    old, new, other = os.environ["OLD"], os.environ["NEW"], "whsec_" + "A" * 43 + "="
    before, during = [(delivery["headers"], delivery["body"]) for delivery in deliveries]
    assert accepts(old, *before) and not accepts(new, *before)
    assert accepts(old, *during) and accepts(new, *during)
    for headers, body in (before, during):
        assert json.loads(body)["type"] == "key.created"
        assert not accepts(other, headers, body)
        assert not accepts(old, headers, body.replace("key.created", "key.deleted"))
        for name in ("webhook-id", "webhook-timestamp"):
            value = headers[name][:-1] + ("0" if headers[name][-1] != "0" else "1")
            assert not accepts(old, {**headers, name: value}, body)
    print("standardwebhooks (PyPI): accepted, and refused what was altered")


if sys.argv[1] == "receive":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Receiver).serve_forever()
else:
    with open(sys.argv[2]) as file:
        verify([json.loads(line) for line in file])
