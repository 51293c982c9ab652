"""Writes all the time, and says on a line what became of each write."""

import json
import logging
import os
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

nodes = [(host, 26379) for host in os.environ["NODES"].split()]
password = os.environ["PASSWORD"]


def say(**what):
    print(json.dumps({"at": time.monotonic() * 1000, **what}), flush=True)


class Notified(logging.Handler):
    """What it says of itself when it is told of a change."""

    def emit(self, record):
        for kind in ("FailingOver", "FailedOver"):
            if f"Node{kind}Notification" in record.getMessage():
                say(told=kind)


if "PROXY" in os.environ:
    log = logging.getLogger("redis.maint_notifications")
    log.setLevel(logging.DEBUG)
    log.addHandler(Notified())
    host, port = os.environ["PROXY"].rsplit(":", 1)
    master = redis.Redis(host=host, port=int(port), username="app", password=password)
else:
    # guide: begin
    # A node that is away is asked once: its own retries take a quarter of a minute, before it asks the next one.
    once = {"socket_timeout": 2, "retry": Retry(NoBackoff(), 0)}
    sentinel = Sentinel(nodes, sentinel_kwargs=once)  # [("100.64.0.3", 26379), ...]
    master = sentinel.master_for("cache", username="app", password=password, socket_timeout=2)
    master.set("greeting", "hello")
    # guide: end


n = 0
while True:
    n += 1
    try:
        master.sadd(os.environ["KEY"], n)
        say(acked=n)
    except redis.RedisError as error:
        say(error=type(error).__name__, message=str(error))
    time.sleep(0.05)
