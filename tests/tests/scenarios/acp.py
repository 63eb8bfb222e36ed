#!/usr/bin/env python3
"""An agent of the Agent Client Protocol, version 1, without a model behind it. With a file's name it keeps its sessions there."""
import json
import sys

kept = sys.argv[1] if len(sys.argv) > 1 else None
sessions = {}
waiting = None


def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def chunk(session, text):
    update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    say({"method": "session/update", "params": {"sessionId": session, "update": update}})


def end(request, reason):
    say({"id": request, "result": {"stopReason": reason}})


while line := sys.stdin.readline():
    message = json.loads(line)
    method, params = message.get("method"), message.get("params", {})
    if method == "initialize":
        assert params["protocolVersion"] == 1
        capabilities = {"loadSession": True} if kept else {}
        say({"id": message["id"], "result": {"protocolVersion": 1, "agentCapabilities": capabilities, "authMethods": []}})
    elif method == "session/load":
        session = params["sessionId"]
        assert params["cwd"].startswith("/") and params["mcpServers"][0]["name"] == "murmur"
        with open(kept) as file:
            sessions = json.load(file)
        for prompt in sessions[session]:
            chunk(session, f"replayed {prompt}")
        say({"id": message["id"], "result": None})
    elif method == "session/new":
        assert params["cwd"].startswith("/") and params["mcpServers"][0]["name"] == "murmur"
        sessions["s-1"] = []
        say({"id": message["id"], "result": {"sessionId": "s-1"}})
    elif method == "session/prompt":
        session, prompt = params["sessionId"], params["prompt"][0]["text"]
        sessions[session].append(prompt)
        if kept:
            with open(kept, "w") as file:
                json.dump(sessions, file)
        if "wait" in prompt:
            waiting = message["id"]
        elif "ask" in prompt:
            waiting = message["id"]
            options = [{"optionId": "yes", "name": "Allow", "kind": "allow_once"}]
            tool = {"toolCallId": "t-1", "title": "rm -r build"}
            say({"id": 7, "method": "session/request_permission",
                 "params": {"sessionId": session, "toolCall": tool, "options": options}})
        elif "error" in prompt:
            say({"id": message["id"], "error": {"code": -32603, "message": "the model is away"}})
        else:
            chunk(session, "did ")
            chunk(session, " | ".join(sessions[session]))
            end(message["id"], "end_turn")
    elif method == "session/cancel":
        end(waiting, "cancelled")
    elif message.get("id") == 7:
        chunk("s-1", f"allowed by {message['result']['outcome']['optionId']}")
        end(waiting, "end_turn")
    else:
        sys.exit(f"what is {line}")
