"""A CLOB that takes every order, for the order-path benchmark. Prints its port and ends with its input.

    python -m benchmarks._orders_server [FOLDER]

A process of its own, so that none of its work is counted. It answers what a log-in asks, and POST /order with the
order's hash; it checks nothing. With a folder (see `certificate`) it speaks TLS.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from email.utils import formatdate
from pathlib import Path

from pmkit.exchanges.polymarket.eip712 import (
    ORDER_TYPE_HASH,
    address_bytes,
    address_word,
    exchange_for,
    hex_word,
    token_word,
    typed_digest,
    word,
)
from pmkit.exchanges.polymarket.keccak import keccak


def certificate(folder: Path) -> ssl.SSLContext:
    """Writes a key and a certificate of 127.0.0.1 there. Returns what makes a client believe it."""
    import ipaddress
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pmkit benchmark")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return ssl.create_default_context(cafile=folder / "certificate.pem")


def order_id(order: dict[str, str]) -> str:
    """The hash of a wire order."""
    contents = keccak(
        ORDER_TYPE_HASH
        + word(int(order["salt"]))
        + address_word(address_bytes(order["maker"]))
        + address_word(address_bytes(order["signer"]))
        + token_word(order["tokenId"])
        + word(int(order["makerAmount"]))
        + word(int(order["takerAmount"]))
        + word(0 if order["side"] == "BUY" else 1)
        + word(int(order["signatureType"]))
        + word(int(order["timestamp"]))
        + hex_word(order["metadata"], "metadata")
        + hex_word(order["builder"], "builder")
    )
    return "0x" + typed_digest(exchange_for(order["tokenId"], False).separator, contents).hex()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            lengths = [line.split(":")[1] for line in lines if line.lower().startswith("content-length")]
            body = await reader.readexactly(int(lengths[0]) if lengths else 0)
            if lines[0].startswith("GET /time"):
                answer = str(int(time.time())).encode()
            elif lines[0].startswith("GET /balance-allowance"):
                answer = b'{"balance":"1000000000","allowances":{}}'
            else:
                known = {"errorMsg": "", "orderID": order_id(json.loads(body)["order"]), "status": "live"}
                answer = json.dumps(known | {"takingAmount": "", "makingAmount": "", "success": True}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: application/json\r\npoly-ratelimit-tier: elite\r\n"
                b"content-length: %d\r\n\r\n%b" % (formatdate(usegmt=True).encode(), len(answer), answer)
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    context = None
    if sys.argv[1:]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(sys.argv[1]) / "certificate.pem", Path(sys.argv[1]) / "key.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
