"""A mock of OpenAI's image API for benchmarks: every POST is answered after a while with the same small PNG.

Costs next to nothing, so that a machine with few cores measures the gateway. Prints its port, and ends with its parent.

    python -m bench.upstream [--delay 0.2]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ctypes
import io
import signal

import uvloop
from PIL import Image

SIDE = 1024


def answer() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (SIDE, SIDE), 90).save(buffer, "PNG")
    body = b'{"created":1,"data":[{"b64_json":"%b"}]}' % base64.b64encode(buffer.getvalue())
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Upstream(asyncio.Protocol):
    """One keep-alive connection. Requests come one after another, each with a content-length."""

    def __init__(self, delay_s: float, reply: bytes) -> None:
        self._delay_s = delay_s
        self._reply = reply
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        self._buffer = b""
        asyncio.get_running_loop().call_later(self._delay_s, self._send)

    def _send(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._reply)  # type: ignore[attr-defined]


async def serve(delay_s: float) -> None:
    reply = answer()
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(delay_s, reply), "127.0.0.1", 0, backlog=2048
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.2, help="seconds")
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    uvloop.run(serve(parser.parse_args().delay))
