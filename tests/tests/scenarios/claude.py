#!/usr/bin/env python3
"""Speaks as Claude Code does with -p --input-format stream-json --output-format stream-json, without a model behind it.

Words of a prompt make it do things: `wait` until it is interrupted or told on, `fail` the turn, `crash`, `recall` what it was told before.
"""
import json
import os
import sys
import uuid

args = sys.argv[1:]
assert "-p" in args and "--verbose" in args, args
assert args[args.index("--input-format") + 1] == "stream-json", args
assert args[args.index("--output-format") + 1] == "stream-json", args
config = json.load(open(args[args.index("--mcp-config") + 1]))
assert config["mcpServers"]["murmur"]["env"]["MURMUR_AGENT_TOKEN_FILE"] == os.environ["MURMUR_AGENT_TOKEN_FILE"]

past = []
session = str(uuid.uuid4())
home = os.environ["FAKE_CLAUDE_HOME"]
if "--resume" in args:
    session = args[args.index("--resume") + 1]
    with open(os.path.join(home, session)) as kept:
        past = json.load(kept)
    if "--fork-session" in args:
        session = str(uuid.uuid4())


def say(event):
    print(json.dumps({"session_id": session, **event}), flush=True)


def result(text, is_error=False):
    global cost
    cost += 0.25
    with open(os.path.join(home, session), "w") as kept:
        json.dump(past, kept)
    say({
        "type": "result", "subtype": "success", "is_error": is_error, "num_turns": 1, "result": text,
        "total_cost_usd": cost, "usage": {"input_tokens": 10, "output_tokens": 5},
    })


cost = 0.0
say({"type": "system", "subtype": "init", "cwd": os.getcwd(), "tools": [], "mcp_servers": [{"name": "murmur"}]})
waiting = False
while line := sys.stdin.readline():
    message = json.loads(line)
    if message["type"] == "control_request":
        assert message["request"]["subtype"] == "interrupt", message
        response = {"subtype": "success", "request_id": message["request_id"]}
        say({"type": "control_response", "response": response})
        if waiting:
            waiting = False
            result("interrupted")
        continue
    prompt = message["message"]["content"][0]["text"]
    past.append(prompt)
    say({"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": f"On it: {prompt}"}]}})
    if waiting:
        waiting = False
        result(f"joined: {prompt}")
    elif "crash" in prompt:
        sys.exit("out of memory")
    elif "wait" in prompt:
        waiting = True
    elif "fail" in prompt:
        result("API Error: overloaded", is_error=True)
    elif "recall" in prompt:
        result(" | ".join(past))
    else:
        result(f"did {prompt}")
