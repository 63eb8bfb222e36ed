#!/usr/bin/env python3
"""Stands in for two hosted model services, so that real clients can run without them: the Messages API of Anthropic and the Responses
API of OpenAI, both streaming. The model is obedient: `CALL tool {json}` in the last words of its user makes it call that tool, what a
tool answers it repeats, and anything else it echoes. Prints its port; every request is a line of the file named by the first argument."""

import itertools
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

log = open(sys.argv[1], "a", buffering=1)
numbers = itertools.count(1)


def wanted(text):
    """The last tool call that a text asks for."""
    calls = re.findall(r"CALL (\w+) (\{.*\})", text)
    return (calls[-1][0], json.loads(calls[-1][1])) if calls else None


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, kind, status=200):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(b"{}", "application/json", 404)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0]
        if path.endswith("/messages"):
            events = messages(json.loads(body))
        elif path.endswith("/responses"):
            events = responses(json.loads(body))
        else:
            return self.answer(b'{"input_tokens": 1}', "application/json")
        stream = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        self.answer(stream.encode(), "text/event-stream")


def messages(request):
    turns = [turn for turn in request["messages"] if turn["role"] != "system"]
    content = turns[-1]["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    log.write(json.dumps(blocks) + "\n")
    last = blocks[-1]
    call = wanted(last["text"]) if last["type"] == "text" else None
    if call:
        block = {"type": "tool_use", "id": f"toolu_{next(numbers)}", "name": call[0], "input": {}}
        delta, stop = {"type": "input_json_delta", "partial_json": json.dumps(call[1])}, "tool_use"
    else:
        said = last["text"] if last["type"] == "text" else json.dumps(last.get("content"))
        block = {"type": "text", "text": ""}
        delta, stop = {"type": "text_delta", "text": said}, "end_turn"
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message = {
        "id": f"msg_{next(numbers)}", "type": "message", "role": "assistant", "model": request["model"],
        "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage,
    }
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]


def responses(request):
    last = request["input"][-1]
    log.write(json.dumps(last) + "\n")
    text = " ".join(part.get("text", "") for part in last.get("content", [])) if last["type"] == "message" else ""
    call = wanted(text)
    if call:
        server, name = re.fullmatch(r"(mcp__[a-z]+)__(\w+)", call[0]).groups()
        item = {
            "type": "function_call", "id": f"fc_{next(numbers)}", "call_id": f"call_{next(numbers)}",
            "namespace": server, "name": name, "arguments": json.dumps(call[1]),
        }
    else:
        said = json.dumps(last["output"]) if "output" in last else text
        item = {
            "type": "message", "id": f"msg_{next(numbers)}", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": said, "annotations": []}],
        }
    usage = {
        "input_tokens": 10, "output_tokens": 5, "total_tokens": 15,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }
    response = {"id": f"resp_{next(numbers)}", "object": "response", "status": "completed", "output": [item], "usage": usage}
    return [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]


service = ThreadingHTTPServer(("127.0.0.1", 0), Service)
service.daemon_threads = True
print(service.server_port, flush=True)
service.serve_forever()
