#!/usr/bin/env python3
"""Lists the peers of this host's node and sends one of them a message.

Needs grpcio and grpcio-tools. The contract is compiled on the fly from the shipped proto files; nothing is generated on
disk. The node seals the message, so this program never sees a key.

    python3 send.py --agent script --to bob "hello from Python"
"""

import argparse
import os
import pathlib
import sys

import grpc

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto" / "proto"


def default_socket() -> str:
    """As every program of Murmur looks for it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    by_default = f"{runtime}/murmur/node.sock" if runtime else f"{data}/murmur/run/node.sock"
    return os.environ.get("MURMUR_NODE_SOCKET") or by_default


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--to", required=True, help="slug of the recipient, as typed: bob, team/bob, /w/acme/u/jdoe/bob")
    parser.add_argument("--agent", default="me", help="who speaks (default: me)")
    parser.add_argument("--socket", default=default_socket(), help="the node's socket")
    parser.add_argument("--proto", default=str(PROTO), help="folder of the shipped proto files")
    options = parser.parse_args()

    sys.path.insert(0, options.proto)
    host, host_services = grpc.protos_and_services("murmur/node/v1/host.proto")
    message, message_services = grpc.protos_and_services("murmur/node/v1/message.proto")

    # A Unix socket has no host name, and HTTP/2 wants one.
    authority = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix:{options.socket}", options=authority) as channel:
        try:
            peers = host_services.HostServiceStub(channel).ListPeers(host.ListPeersRequest(), timeout=10)
            for peer in peers.peers:
                print(f"{peer.slug}  {'online' if peer.online else 'offline'}  {peer.tier}")
            sent = message_services.MessageServiceStub(channel).Send(
                message.SendRequest(agent=options.agent, to=options.to, body=options.text.encode()), timeout=10
            )
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    print(f"sent {sent.msg_id} to {sent.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
