#!/bin/sh
# Development tools, found or installed once: `tool.sh install` brings what `make check` needs beside Rust and a C compiler;
# `tool.sh fuzz` brings the fuzzer; `tool.sh buf …` and `tool.sh python …` run a tool from PATH or from the project's own cache.
set -eu

cache=${MURMUR_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?set HOME or MURMUR_CACHE_DIR}/.cache}/murmur}
venv=$cache/tools-1
nextest=0.9.143
deny=0.20.2
buf=1.75.0
fuzz=0.13.1
grpcio=1.85.1

say() { echo "tool: $*" >&2; }

need_python() {
    command -v python3 >/dev/null 2>&1 && python3 -m venv --help >/dev/null 2>&1 && return 0
    say "error: python3 with its venv module is needed for this; install it with your system's packages"
    exit 1
}

# A private environment with buf and the gRPC tools that the example for Python uses.
ensure_venv() {
    [ -f "$venv/ready" ] && return 0
    need_python
    mkdir -p "$cache"
    fresh=$(mktemp -d "$cache/tools.XXXXXX")
    say "installing buf and grpcio into $venv"
    python3 -m venv "$fresh" >&2
    "$fresh/bin/python" -m pip install --quiet --disable-pip-version-check \
        "buf-bin==$buf" "grpcio==$grpcio" "grpcio-tools==$grpcio" "grpcio-reflection==$grpcio" >&2
    touch "$fresh/ready"
    # Whoever comes second throws its own copy away. Scripts inside name the first directory, so they are called through python.
    mv -T "$fresh" "$venv" 2>/dev/null || rm -rf "$fresh"
    [ -f "$venv/ready" ]
}

ensure_cargo_tool() {
    cargo "$1" --version >/dev/null 2>&1 && return 0
    say "building cargo-$1 $2 (some minutes, once)"
    # Built once and run for a second: what optimising takes is never won back.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo install "cargo-$1" --locked --version "$2" >&2
}

case "${1:-}" in
    install)
        ensure_venv
        ensure_cargo_tool nextest "$nextest"
        ensure_cargo_tool deny "$deny"
        ;;
    fuzz) ensure_cargo_tool fuzz "$fuzz" ;;
    buf)
        shift
        if command -v buf >/dev/null 2>&1; then exec buf "$@"; fi
        ensure_venv
        exec "$venv/bin/buf" "$@"
        ;;
    python)
        shift
        ensure_venv
        exec "$venv/bin/python" "$@"
        ;;
    *)
        say "usage: tool.sh install | fuzz | buf … | python …"
        exit 2
        ;;
esac
