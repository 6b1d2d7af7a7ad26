"""A stand-in for Vault that answers KV version 2 reads at once and counts the requests, for the peers.

After https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version; every path holds the field
`password`. Started as a process of its own: `python vault.py` prints its address. GET /requests: the count so far.
"""

import asyncio
import json

METADATA = {"created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": False, "version": 1}
ENVELOPE: dict[str, object] = {"request_id": "", "lease_id": "", "renewable": False, "lease_duration": 0, "auth": None}
MOUNT: dict[str, object] = {"path": "secret/", "type": "kv", "options": {"version": "2"}}


class Connection(asyncio.Protocol):
    requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while b"\r\n\r\n" in self.pending:
            head, self.pending = self.pending.split(b"\r\n\r\n", 1)
            self.answer(head.split(b" ", 2)[1].decode())

    def answer(self, target: str) -> None:
        if target == "/requests":
            body: dict[str, object] = {"requests": Connection.requests}
        else:
            Connection.requests += 1
            body = ENVELOPE | {"data": self.data(target)}
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        self.transport.write(head.encode() + text)

    def data(self, target: str) -> dict[str, object]:
        if target.startswith("/v1/sys/internal/ui/mounts/"):
            return MOUNT
        if target.startswith("/v1/auth/token/"):
            return {"id": "token", "ttl": 3600, "policies": ["default"]}
        return {"data": {"password": "value of " + target.rpartition("/")[2]}, "metadata": METADATA}


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
