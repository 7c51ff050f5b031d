"""Sends a message with the library of Standard Webhooks from PyPI. Usage: URL SECRET ID SENDER"""

import json
import sys
import urllib.error
import urllib.request
from datetime import datetime, timezone

from standardwebhooks import Webhook

url, secret, name, sender = sys.argv[1:]
body = json.dumps({"text": "hello, wörld", "sender": sender}, ensure_ascii=False)
at = datetime.now(tz=timezone.utc)
headers = {
    "content-type": "application/json",
    "webhook-id": name,
    "webhook-timestamp": str(int(at.timestamp())),
    "webhook-signature": Webhook(secret).sign(name, at, body),
}
request = urllib.request.Request(url, body.encode(), headers)
try:
    answer = urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
