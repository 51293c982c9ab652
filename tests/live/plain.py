"""One connection, no library, no retry: writes all the time, and says on a line what became of each write and how long it took."""

import json
import os
import socket
import time

host, port = os.environ["PROXY"].rsplit(":", 1)


def say(**what):
    print(json.dumps({"at": time.monotonic() * 1000, **what}), flush=True)


class Connection:
    def __init__(self):
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb")
        self.ask("AUTH", "app", os.environ["PASSWORD"])

    def ask(self, *words):
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self.socket.sendall(request.encode())
        reply = self.replies.readline().decode().rstrip()
        if not reply:
            raise OSError("the connection ended")
        if reply.startswith("-"):
            raise ValueError(reply)


n, connection = 0, None
while True:
    n += 1
    try:
        connection = connection or Connection()
        begun = time.monotonic()
        connection.ask("SADD", os.environ["KEY"], str(n))
        say(acked=n, took=(time.monotonic() - begun) * 1000)
    except OSError as error:
        connection = None
        say(error="connection", message=str(error))
    except ValueError as error:
        say(error=str(error).split()[0], message=str(error))
    time.sleep(0.005)
