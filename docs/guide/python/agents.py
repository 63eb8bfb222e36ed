#!/usr/bin/env python3
"""Starts three agents, gives them checklists, waits for their answers, and ends them: a parent in Python over plain gRPC.

Needs grpcio and grpcio-tools. Inside an agent that a node started it speaks for that agent, by the token that the node gave it;
elsewhere as the agent that --agent names.

    python3 agents.py --agent lead --backend bash 'echo "{} is fine"' alpha beta gamma
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
    parser.add_argument("description", help="the prompt of each; {} is its name")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--agent", default="", help="who speaks, where there is no token")
    parser.add_argument("--backend", default="", help="what runs them (default: the node's)")
    parser.add_argument("--timeout", type=int, default=600, help="how long to wait for each, in seconds (default: 600)")
    parser.add_argument("--socket", default=os.environ.get("MURMUR_NODE_SOCKET", ""), help="the node's socket")
    parser.add_argument("--proto", default=str(PROTO), help="folder of the shipped proto files")
    options = parser.parse_args()

    sys.path.insert(0, options.proto)
    agent, agent_services = grpc.protos_and_services("murmur/v1/agent.proto")
    task, task_services = grpc.protos_and_services("murmur/v1/task.proto")

    with grpc.insecure_channel(f"unix:{options.socket}", options=[("grpc.default_authority", "localhost")]) as channel:
        agents, tasks = agent_services.AgentServiceStub(channel), task_services.TaskServiceStub(channel)
        who = identity(options.agent)
        try:
            spec = agent.AgentSpec(
                description=options.description,
                backend=options.backend,
                tasks=["look", "report"],
                on_idle=agent.ON_IDLE_KEEP_ALIVE,
            )
            spawn = agent.SpawnAgentRequest(slug="{}", spec=spec, each=options.names)
            spawned = agents.SpawnAgent(spawn, metadata=who, timeout=30).agents
            for child in spawned:
                # The second item waits for the first.
                update = task.UpdateTaskRequest(slug=child.slug, task_id="2", add_blocked_by=["1"])
                tasks.UpdateTask(update, metadata=who, timeout=30)
            for child in spawned:
                wait = agent.WaitAgentRequest(slug=child.slug)
                wait.timeout.FromSeconds(options.timeout)
                answer = next(agents.WaitAgent(wait, metadata=who, timeout=options.timeout + 30))
                phase = agent.Phase.Name(answer.agent.phase)
                print(f"{answer.agent.slug} {phase}: {answer.agent.output.response.strip()}")
            for child in spawned:
                killed = agents.KillAgent(agent.KillAgentRequest(slug=child.slug), metadata=who, timeout=30).killed
                print("killed", *killed)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
