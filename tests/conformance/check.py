#!/usr/bin/env python3
"""An independent reader of the conformance files in v2/, written from the protocol's text alone.

It shares no code with the Rust implementation: its own protobuf reader, its own HKDF and HPKE (RFC 9180 base mode), its own
chain check. Needs `pip install cryptography pynacl`. Exits with an assertion naming the line that failed.
"""
import hashlib
import hmac
import json
import pathlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as xchacha_open

HERE = pathlib.Path(__file__).parent / "v2"
x = bytes.fromhex


def H(data):
    return hashlib.sha256(data).digest()


def L(label):
    return label.encode() + b"\0"


def extract(salt, ikm):
    return hmac.new(salt or b"\0" * 32, ikm, hashlib.sha256).digest()


def expand(prk, info, n):
    out = block = b""
    counter = 1
    while len(out) < n:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out += block
        counter += 1
    return out[:n]


def hkdf(salt, ikm, info):
    return expand(extract(salt, ikm), info.encode(), 32)


# === HPKE, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305 ===

KEM = b"KEM\x00\x20"
HPKE = b"HPKE\x00\x20\x00\x01\x00\x03"


def labeled_extract(salt, suite, label, ikm):
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(prk, suite, label, info, n):
    return expand(prk, struct.pack(">H", n) + b"HPKE-v1" + suite + label + info, n)


def derive_key_pair(ikm):
    secret = labeled_expand(labeled_extract(b"", KEM, b"dkp_prk", ikm), KEM, b"sk", b"", 32)
    return X25519PrivateKey.from_private_bytes(secret)


def hpke_open(secret, enc, info, aad, ciphertext):
    public = secret.public_key().public_bytes_raw()
    dh = secret.exchange(X25519PublicKey.from_public_bytes(enc))
    shared = labeled_expand(labeled_extract(b"", KEM, b"eae_prk", dh), KEM, b"shared_secret", enc + public, 32)
    context = b"\0" + labeled_extract(b"", HPKE, b"psk_id_hash", b"") + labeled_extract(b"", HPKE, b"info_hash", info)
    prk = labeled_extract(shared, HPKE, b"secret", b"")
    key = labeled_expand(prk, HPKE, b"key", context, 32)
    nonce = labeled_expand(prk, HPKE, b"base_nonce", context, 12)
    return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, aad)


# === protobuf: fields in order, each a number or bytes ===


def fields(data):
    at, out = 0, []

    def varint():
        nonlocal at
        shift = value = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            out.append((key >> 3, varint()))
        else:
            assert key & 7 == 2, "only varint and length-delimited fields are used"
            size = varint()
            assert at + size <= len(data)
            out.append((key >> 3, data[at : at + size]))
            at += size
    numbers = [number for number, _ in out]
    assert numbers == sorted(numbers), "senders emit ascending field order"
    return out


def every(pairs, number):
    return [value for n, value in pairs if n == number]


def verify(public, signature, message):
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


# === statements and chains ===


def statement(data):
    parts = dict(fields(data))
    return parts[1], parts[2]


def cert_fp(body):
    return H(L("murmur/2 cert-fp") + body)


def check_cert(child, signature, parent):
    c, p = dict(fields(child)), dict(fields(parent))
    assert c[6] == cert_fp(parent) and c[4] == p[4] and p[2] < c[2] and p[11] == 1
    scopes = every(fields(parent), 10)
    for name in every(fields(child), 10) + every(fields(child), 15):
        assert any(name.startswith(scope) for scope in scopes)
    verify(p[5], signature, L("murmur/2 cert") + H(child))


def check_chain(chain, root):
    """Leaf first, root omitted. Returns the leaf's body."""
    root_body, root_signature = statement(root)
    verify(dict(fields(root_body))[5], root_signature, L("murmur/2 cert") + H(root_body))
    certs = [statement(cert) for cert in every(fields(chain), 1)]
    assert 1 <= len(certs) <= 3
    parents = [body for body, _ in certs[1:]] + [root_body]
    for (body, signature), parent in zip(certs, parents):
        check_cert(body, signature, parent)
    leaf = certs[0][0]
    assert dict(fields(leaf))[2] == 4 and dict(fields(leaf))[14] == dict(fields(parents[0]))[3]
    return leaf


def check_prekey(body, signature, agent_body):
    p, agent = dict(fields(body)), dict(fields(agent_body))
    assert p[1] == 2 and p[2] == 0x0201 and p[3] == agent[3] and p[4] == cert_fp(agent_body)
    verify(agent[5], signature, L("murmur/2 prekey") + H(body))
    return H(L("murmur/2 prekey-id") + body)[:8]


# === envelopes ===


def padme(size):
    size = max(size, 256)
    e = size.bit_length() - 1
    mask = (1 << (e - e.bit_length())) - 1
    return (size + mask) & ~mask


def unpad(padded):
    size = struct.unpack(">I", padded[:4])[0]
    assert len(padded) == padme(4 + size) and not any(padded[4 + size :])
    return padded[4 : 4 + size]


def open_envelope(data, sender, recipients):
    """Opens for every (agent id, prekey id, private key); yields the steps of each."""
    envelope = dict(fields(data))
    header_fields = fields(envelope[1])
    header = dict(header_fields)
    assert header[1] == 2 and header[2] == 0x0201
    signed = L("murmur/2 env-sig") + H(envelope[1]) + H(envelope[2]) + H(envelope[3] + envelope[4])
    verify(sender, envelope[5], signed)
    h = H(L("murmur/2 env-hdr") + envelope[1])
    stanzas = [dict(fields(stanza)) for stanza in every(fields(envelope[2]), 1)]
    named = every(header_fields, 14)
    assert len(stanzas) == len(named)
    for agent_id, prekey_id, secret in recipients:
        index = named.index(agent_id)
        stanza = stanzas[index]
        assert stanza[1] == prekey_id
        info = L("murmur/2 wrap") + b"\x02\x01" + h
        aad = agent_id + prekey_id + struct.pack(">H", index)
        cek = hpke_open(X25519PrivateKey.from_private_bytes(secret), stanza[2], info, aad, stanza[3])
        assert hkdf(header[3], cek, "murmur/2 commit") == header[13]
        k_payload = hkdf(h, cek, "murmur/2 payload")
        payload_aad = L("murmur/2 payload") + h
        padded = xchacha_open(envelope[4], payload_aad, envelope[3], k_payload)
        yield {
            "header": envelope[1],
            "header_hash": h,
            "key_commitment": header[13],
            "k_payload": k_payload,
            "k_stream": hkdf(h, cek, "murmur/2 stream"),
            "payload_aad": payload_aad,
            "padded_inner": padded,
            "inner": unpad(padded),
            "hpke_info": info,
            "hpke_aad": aad,
            "enc": stanza[2],
            "wrapped_key": stanza[3],
            "sig_input": signed,
            "env_digest": H(signed + envelope[5]),
            "cek": cek,
        }


def same(steps, expected):
    for name, value in expected.items():
        if isinstance(value, str):
            assert steps[name] == x(value), name


def check_start_set():
    """The vectors that came with the protocol."""
    envelope, chunk = json.load(open(HERE / "envelope_v2.json"))["cases"]
    k = envelope["keys"]
    reader = (x(k["recipient_agent_id"]), x(k["prekey_id"]), x(k["recipient_x25519_private"]))
    (steps,) = open_envelope(x(envelope["envelope"]), x(k["sender_ed25519_public"]), [reader])
    same(steps, envelope["intermediate"])
    assert steps["inner"] == x(envelope["inner"]) and steps["cek"] == x(envelope["randomness"]["cek"])
    for part in chunk["chunks"]:
        nonce = x(chunk["nonce_prefix"]) + struct.pack(">I", part["index"]) + bytes([part["last"]])
        assert xchacha_open(x(part["ciphertext"]), x(chunk["aad"]), nonce, x(chunk["k_stream"])) == x(part["plaintext"])

    trust = {case["id"]: case for case in json.load(open(HERE / "trust_v2.json"))["cases"]}
    certs = trust["cert-chain-ok"]
    for parent, child in (("root", "root"), ("root", "node"), ("node", "agent")):
        body = x(certs[child]["body"])
        public = dict(fields(x(certs[parent]["body"])))[5]
        verify(public, x(certs[child]["signature"]), L("murmur/2 cert") + H(body))
        assert cert_fp(body).hex() == certs[child]["fp"]
    prekey = trust["prekey-ok"]
    prekey_id = check_prekey(x(prekey["body"]), x(prekey["signature"]), x(certs["agent"]["body"]))
    assert prekey_id.hex() == prekey["prekey_id"]
    dm = trust["dm-conversation-id"]
    assert dm_id(x(dm["a"]), x(dm["b"])).hex() == dm["out"]
    safety = trust["safety-number"]
    digest = hashlib.sha512(L("murmur/2 safety") + b"".join(sorted([x(safety["a"]), x(safety["b"])]))).digest()
    groups = (int.from_bytes(digest[i * 5 : i * 5 + 5], "big") % 100000 for i in range(12))
    assert " ".join("%05d" % group for group in groups) == safety["out"]
    head = b"\0" * 32
    for expected, name in zip(trust["keylog-chain"]["heads"], ("root", "node", "agent")):
        head = keylog(head, x(certs[name]["body"]))
        assert head.hex() == expected
    assert all(padme(size) == padded for size, padded in trust["padme"]["pairs"])
    print("start set OK")


def dm_id(a, b):
    return H(L("murmur/2 dm") + min(a, b) + max(a, b))[:16]


def keylog(head, body):
    return H(L("murmur/2 keylog") + head + H(body))


def check_envelope_case(case):
    k = case["keys"]
    sender = x(k["sender_ed25519_public"])
    assert Ed25519PrivateKey.from_private_bytes(x(k["sender_ed25519_seed"])).public_key().public_bytes_raw() == sender
    envelope = dict(fields(x(case["envelope"])))
    header = dict(fields(envelope[1]))
    leaf = check_chain(envelope[6], x(case["root"]))
    agent = dict(fields(leaf))
    assert agent[5] == sender and cert_fp(leaf) == header[6] and agent[3] == header[4] and agent[14] == header[5]
    assert header[16].decode().split(".")[-1] == header[5].hex()
    readers = [(x(r["agent_id"]), x(r["prekey_id"]), x(r["x25519_private"])) for r in k["recipients"]]
    assert every(fields(envelope[1]), 14) == [reader[0] for reader in readers]
    for at, steps in enumerate(open_envelope(x(case["envelope"]), sender, readers)):
        same(steps, case["intermediate"])
        same(steps, case["intermediate"]["stanzas"][at])
        assert steps["inner"] == x(case["inner"]) and steps["cek"] == x(case["randomness"]["cek"])
        ephemeral = derive_key_pair(x(case["randomness"]["hpke_ikm_e"][at])).public_key().public_bytes_raw()
        assert steps["enc"] == ephemeral and envelope[3] == x(case["randomness"]["payload_nonce"])
        private = X25519PrivateKey.from_private_bytes(readers[at][2])
        assert private.public_key().public_bytes_raw() == x(k["recipients"][at]["x25519_public"])
    if "fields" in case:
        check_inner(case["fields"], x(case["inner"]), header)
    print(case["id"], "OK")


def check_inner(expected, inner, header):
    pairs = fields(inner)
    got = dict(pairs)
    texts = {2: "content_type", 7: "traceparent", 8: "tracestate"}
    blobs = {3: "body", 4: "parent_msg_id", 5: "in_reply_to", 14: "conversation_id"}
    assert got[1] == expected["kind"] and got[12] == expected["priority"] and 13 not in got and 6 not in got
    assert all(got[number].decode() == expected[name] for number, name in texts.items())
    assert all(got[number] == x(expected[name]) for number, name in blobs.items())
    assert got[14] == header[7] == dm_id(header[4], header[14])
    attrs = [dict(fields(attr)) for attr in every(pairs, 11)]
    assert [[attr[1].decode(), attr[2].decode()] for attr in attrs] == expected["attrs"]
    log, log_expected = dict(fields(got[10])), expected["log_head"]
    head = b"\0" * 32
    for body in log_expected["entries"]:
        head = keylog(head, x(body))
    assert log == {1: x(log_expected["workspace_id"]), 2: log_expected["size"], 3: head}
    assert log[2] == len(log_expected["entries"]) and head == x(log_expected["head"])
    stream, s = dict(fields(got[9])), expected["stream"]
    assert stream == {
        1: x(s["stream_id"]),
        2: x(s["nonce_prefix"]),
        3: s["chunk_size"],
        4: s["total_size"],
        5: s["filename"].encode(),
        6: s["content_type"].encode(),
        7: x(s["sha256"]),
    }


def check_ack_case(case):
    frame = dict(fields(x(case["frame"])))
    leaf = check_chain(frame[3], x(case["root"]))
    agent = dict(fields(leaf))
    public = x(case["acker_ed25519_public"])
    verify(public, frame[2], L("murmur/2 ack") + H(frame[1]))
    pairs = fields(frame[1])
    body = dict(pairs)
    assert body[1] == 2 and body[2] == agent[3] == x(case["acker_agent_id"]) and agent[5] == public
    assert body[3] == cert_fp(leaf) and body[4] == x(case["sender_agent_id"]) and body[5] == case["at_ms"]
    items = every(pairs, 6)
    assert len(items) == len(case["items"])
    for data, expected in zip(items, case["items"]):
        item = dict(fields(data))
        assert item[1] == x(expected["msg_id"]) and item[2] == x(expected["env_digest"])
        assert item[3] == expected["status"] and item.get(4, 0) == expected.get("code", 0)
        assert item.get(5, 0) == expected.get("retry_after_s", 0)
        assert (6 in item) == expected.get("fresh_prekey", False)
        if 6 in item:
            check_prekey(*statement(item[6]), leaf)
    (credit,) = (dict(fields(data)) for data in every(pairs, 7))
    (expected,) = case["credits"]
    assert credit[1] == x(expected["stream_id"]) and credit[2] == expected["next_index"]
    assert credit[3] == expected["window"] and credit.get(4, 0) == expected["state"]
    print(case["id"], "OK")


def main():
    check_start_set()
    check = {"open": check_envelope_case, "ack_verify": check_ack_case}
    cases = json.load(open(HERE / "messages_v2.json"))["cases"]
    assert [case["id"] for case in cases] == ["env-3-recipients-ok", "inner-full-ok", "ack-ok"]
    for case in cases:
        check[case["op"]](case)


main()
