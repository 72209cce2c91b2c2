"""Has a task that is silent for a while, and reads its events with the decoder inside OpenAI's client, as its users do, and as lines.

    sse.py BASE TASK        prints {"frames": [each event's data], "lines": the lines}
"""

import json
import sys
import threading
import urllib.request

from openai._streaming import SSEDecoder

base, task = sys.argv[1:]
heard, lines = bytearray(), []


def ask(path, **more):
    return urllib.request.urlopen(urllib.request.Request(base + path, **more), timeout=60)


def pieces(stream):
    while piece := stream.read1(65536):
        heard.extend(piece)
        yield piece


with ask("/v1/tasks", data=task.encode(), headers={"content-type": "application/json"}) as accepted:
    path = f"/v1/tasks/{json.load(accepted)['id']}/events"
reader = threading.Thread(target=lambda: lines.append(ask(path, headers={"accept": "application/x-ndjson"}).read().decode()))
reader.start()
with ask(path) as stream:
    events = list(SSEDecoder().iter_bytes(pieces(stream)))
reader.join()
assert heard.count(b": ka\n") == 1 and b": ka\n\n" not in heard, heard.decode()
for event in events:
    assert event.data and event.event == event.json()["type"] and int(event.id) == event.json()["seq"], event
print(json.dumps({"frames": [event.json() for event in events], "lines": lines[0]}))
