"""An application that knows REDIS_URL and nothing of clusters: it writes all the time, has each write confirmed by a replica, reads it
back, tries nothing twice, and tells on its port what it saw. What is asked for as /phase begins the count of errors anew."""

import http.server
import json
import os
import socketserver
import threading
import time
import uuid

import redis

run = uuid.uuid4().hex
lock = threading.Lock()
seen = {
    "run": run,
    "knows_the_key": "TS_AUTHKEY" in os.environ,
    "last": 0,
    "not_acknowledged": [],
    "errors": [],
    "unconfirmed": 0,
    "not_read_back": [],
    "longest_gap_ms": 0,
}


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with lock:
            body = json.dumps(seen).encode()
            if self.path == "/phase":
                seen.update(errors=[], unconfirmed=0, longest_gap_ms=0)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# The one of http.server looks its own name up first, and waits where nobody answers.
socketserver.ThreadingTCPServer.allow_reuse_address = True
page = socketserver.ThreadingTCPServer(("", 8000), Page)
threading.Thread(target=page.serve_forever, daemon=True).start()

# WAIT counts for the connection that wrote.
pool = redis.ConnectionPool.from_url(os.environ["REDIS_URL"])
client = redis.Redis(connection_pool=pool, single_connection_client=True)
n, acknowledged = 0, time.monotonic()
while True:
    n += 1
    error, confirmed, read_back = None, False, True
    try:
        client.sadd(run, n)
        confirmed = client.wait(1, 2000) >= 1
        read_back = not confirmed or client.sismember(run, n)
    except redis.RedisError as what:
        error = f"{n}: {what!r}"
    with lock:
        now = time.monotonic()
        if confirmed:
            seen["longest_gap_ms"] = max(seen["longest_gap_ms"], round((now - acknowledged) * 1000))
            acknowledged = now
        else:
            seen["not_acknowledged"].append(n)
        if error:
            seen["errors"].append(error)
        elif not confirmed:
            seen["unconfirmed"] += 1
        if not read_back:
            seen["not_read_back"].append(n)
        seen["last"] = n
    time.sleep(0.005)
