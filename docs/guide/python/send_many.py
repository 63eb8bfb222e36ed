#!/usr/bin/env python3
"""Sends each line of its input as a message, over one stream.

For programs that send much: a call for each message costs more than the message. Needs what send.py needs.

    tail -F build.log | python3 send_many.py --agent script --to bob
"""

import argparse
import pathlib
import sys

import grpc

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto" / "proto"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, help="slug of the recipient, as typed")
    parser.add_argument("--agent", default="me", help="who speaks (default: me)")
    parser.add_argument("--socket", required=True, help="the node's socket")
    parser.add_argument("--proto", default=str(PROTO), help="folder of the shipped proto files")
    options = parser.parse_args()

    sys.path.insert(0, options.proto)
    message, services = grpc.protos_and_services("murmur/node/v1/message.proto")

    def requests():
        for line in sys.stdin.buffer:
            body = line.rstrip(b"\n")
            yield message.SendManyRequest(send=message.SendRequest(agent=options.agent, to=options.to, body=body))

    failed = False
    with grpc.insecure_channel(f"unix:{options.socket}", options=[("grpc.default_authority", "localhost")]) as channel:
        # grpc takes the requests from a thread of its own, so that answers are read meanwhile, as SendMany asks.
        try:
            for number, answer in enumerate(services.MessageServiceStub(channel).SendMany(requests()), start=1):
                if answer.WhichOneof("outcome") == "refused":
                    failed = True
                    code = next(code.name for code in grpc.StatusCode if code.value[0] == answer.refused.code)
                    print(f"line {number}: {code}: {answer.refused.message}", file=sys.stderr)
                else:
                    print(answer.accepted.msg_id)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
