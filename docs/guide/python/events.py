#!/usr/bin/env python3
"""Reads an agent's events and goes on with what comes; says something into the log first, if asked to: over plain gRPC.

Needs grpcio and grpcio-tools. Inside an agent that a node started it speaks for that agent, by the token that the node gave it;
elsewhere as the agent that --agent names.

    python3 events.py --agent alice
"""

import argparse
import os
import pathlib
import sys

import grpc

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto" / "proto"


def identity(agent: str) -> list:
    """Who calls: the agent of the token, else a named interactive one, else the person whose node it is."""
    token_file = os.environ.get("MURMUR_AGENT_TOKEN_FILE")
    if token_file:
        return [("authorization", "Bearer " + pathlib.Path(token_file).read_text().strip())]
    return [("murmur-agent", agent)] if agent else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="", help="whose log, where there is no token")
    parser.add_argument("--say", default="", help="tell the agent this first")
    parser.add_argument("--count", type=int, default=0, help="end after so many events (default: never)")
    parser.add_argument("--socket", default=os.environ.get("MURMUR_NODE_SOCKET", ""), help="the node's socket")
    parser.add_argument("--proto", default=str(PROTO), help="folder of the shipped proto files")
    options = parser.parse_args()

    sys.path.insert(0, options.proto)
    event, services = grpc.protos_and_services("murmur/v1/event.proto")

    with grpc.insecure_channel(f"unix:{options.socket}", options=[("grpc.default_authority", "localhost")]) as channel:
        events = services.EventServiceStub(channel)
        who = identity(options.agent)
        try:
            if options.say:
                events.PublishEvent(event.PublishEventRequest(slug="self", text=options.say), metadata=who, timeout=30)
            # The newest ten, or as many as are wanted, then what comes. An answer's resume_token is where another stream goes on.
            watch = event.WatchEventsRequest(backlog=options.count or 10)
            seen = 0
            for answer in events.WatchEvents(watch, metadata=who):
                what = answer.WhichOneof("item")
                if what == "event":
                    told = answer.event
                    mark = " (untrusted)" if told.untrusted else ""
                    print(f"{told.seq}  {told.kind}{mark}  {told.origin}  {told.text}", flush=True)
                    seen += 1
                    if seen == options.count:
                        return 0
                elif what == "gap":
                    print("events before this are no longer kept", flush=True)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
