#!/usr/bin/env python3
"""Runs Claude Code in a terminal of its own, as a person would, with Murmur as a channel: agrees to what it asks at the start, shows it a
screen of 160 by 50, and ends it when standard input ends. Arguments: the client, murmur-mcp, the name to attach as, the node's socket, its
configuration folder, the folder to start in."""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

client, shim, agent, socket, config, folder = sys.argv[1:]
state = {
    "hasCompletedOnboarding": True,
    "theme": "dark",
    "customApiKeyResponses": {"approved": [os.environ["ANTHROPIC_API_KEY"][-20:]], "rejected": []},
    "projects": {folder: {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    # What its own service would say of channels.
    "cachedGrowthBookFeatures": {"tengu_harbor": True, "tengu_harbor_permissions": True},
    "cachedGrowthBookFeaturesAt": int(time.time() * 1000),
}
with open(os.path.join(config, ".claude.json"), "w") as file:
    json.dump(state, file)
servers = {"mcpServers": {"murmur": {"command": shim, "args": ["--agent", agent, "--socket", socket]}}}
with open(os.path.join(folder, ".mcp.json"), "w") as file:
    json.dump(servers, file)
os.makedirs(os.path.join(folder, ".claude"), exist_ok=True)
with open(os.path.join(folder, ".claude", "settings.local.json"), "w") as file:
    json.dump({"enableAllProjectMcpServers": True, "permissions": {"allow": ["mcp__murmur"]}}, file)

pid, terminal = pty.fork()
if pid == 0:
    os.chdir(folder)
    os.environ["TERM"] = "xterm-256color"
    os.execv(client, [client, "--dangerously-load-development-channels", "server:murmur"])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
seen = b""
agreed = False
while True:
    ready, _, _ = select.select([terminal, sys.stdin], [], [])
    if sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096):
        break
    if terminal in ready:
        try:
            written = os.read(terminal, 65536)
        except OSError:
            break
        seen = (seen + written)[-65536:]
        if not agreed and b"development" in seen and b"confirm" in seen:
            os.write(terminal, b"\r")
            agreed = True
os.kill(pid, 15)
os.waitpid(pid, 0)
