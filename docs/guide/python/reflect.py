#!/usr/bin/env python3
"""Lists the services behind an address by gRPC reflection, without any proto file.

Needs grpcio and grpcio-reflection.

    python3 reflect.py unix:/run/user/1000/murmur/node.sock
"""

import sys

import grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    # A Unix socket has no host name, and HTTP/2 wants one.
    with grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", "localhost")]) as channel:
        for service in sorted(ProtoReflectionDescriptorDatabase(channel).get_services()):
            print(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
