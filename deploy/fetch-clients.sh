#!/bin/sh
# The programs of other people that `make clients` tries Murmur with, in pinned versions from the npm registry, kept in the project's own
# cache. Prints the folder.
set -eu

cache=${MURMUR_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?set HOME or MURMUR_CACHE_DIR}/.cache}/murmur}
dir=$cache/clients-1

if [ ! -f "$dir/ready" ]; then
    command -v npm >/dev/null 2>&1 || { echo "fetch-clients: error: npm is needed for this; install Node.js 20 or later" >&2; exit 1; }
    mkdir -p "$cache"
    fresh=$(mktemp -d "$cache/clients.XXXXXX")
    npm install --silent --no-fund --no-audit --prefix "$fresh" \
        @anthropic-ai/claude-code@2.1.329 @openai/codex@0.169.0 @agentclientprotocol/claude-agent-acp@0.100.0 >&2
    touch "$fresh/ready"
    mv -T "$fresh" "$dir" 2>/dev/null || rm -rf "$fresh"
fi
echo "$dir"
