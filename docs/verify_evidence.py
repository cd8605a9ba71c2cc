"""Check what `smp-bridge evidence export` wrote (docs/evidence.md): verify_evidence.py OUT.zip HOST-KEYS.json [ANCHOR.json]. Exit 0: whole."""
import base64, hashlib, json, sys, zipfile

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.hashes import SHA256

NAMES = ["evidence.jsonl", "manifest.json", "signature.json"]
dumps = lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
sha = lambda *parts: hashlib.sha256(b"".join(parts)).digest()
b64u = lambda text: base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
big = lambda raw: int.from_bytes(raw, "big")


def need(good, where, text):
    if not good:
        raise SystemExit(f"WRONG {where}: {text}")


def check_signature(keys, said, signed, where):
    need(said["kid"] in keys, where, f"signed by the key {said['kid']}, which is none of the host's")
    jwk, raw = keys[said["kid"]], b64u(said["signature"])
    need(jwk["alg"] == said["alg"] in ("ES256", "EdDSA") and len(raw) == 64, where, "a signature of another kind")
    try:
        if said["alg"] == "EdDSA":
            return ed25519.Ed25519PublicKey.from_public_bytes(b64u(jwk["x"])).verify(raw, signed)
        point = ec.EllipticCurvePublicNumbers(big(b64u(jwk["x"])), big(b64u(jwk["y"])), ec.SECP256R1()).public_key()
        point.verify(utils.encode_dss_signature(big(raw[:32]), big(raw[32:])), signed, ec.ECDSA(SHA256()))
    except Exception:
        need(False, where, f"the signature is not of the key {said['kid']}")


def root_of(level):
    while len(level) > 1:
        level = [sha(b"\1", *level[i : i + 2]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
    return level[0]


def root_above(node, index, size, path):
    while size > 1:
        if index ^ 1 < size:
            step = bytes.fromhex(path.pop(0))
            node = sha(b"\1", step, node) if index % 2 else sha(b"\1", node, step)
        index, size = index // 2, (size + 1) // 2
    return None if path else node


def place_in(ranges, index):
    for writer, epoch, first, last in ranges:
        if 0 <= index <= last - first:
            return [writer, epoch, first + index]
        index -= last - first + 1


class Chain:
    def __init__(self, manifest, keys):
        self.whose, self.erased, self.spanned = [manifest["journal"], manifest["participant"]], 0, False
        self.m, self.keys, self.hashes, self.block, self.headed, self.last_head = manifest, keys, {}, None, True, None

    def close(self, where):
        whole = len(self.leaves) == self.block[3]
        need(whole or not self.leaves, where, f"not all {self.block[3]} events of block {self.block[0]} are there")
        need(not whole or root_of(self.leaves) == self.root, where, "the block's events are not those of its root")
        need(whole or not self.inside, where, f"events of block {self.block[0]} are missing")
        need(self.spoken == self.held, where, "bytes that its events speak of are missing")

    def take(self, line, where):
        kind = next(k for k in ("block", "event", "blob", "erased", "head") if k in line)
        if self.block and kind in ("block", "head"):
            self.close(where)
        getattr(self, f"on_{kind}")(line[kind], line, where)

    def on_block(self, fields, _, where):
        before, (n, previous, root, events, *times, ranges), span = self.block and self.block[0], fields, self.m["scope"]
        self.inside = "from_ns" in span and times[0] <= span["to_ns"] and times[1] >= span["from_ns"]
        if before is not None and n == before + 1:
            need(bytes.fromhex(previous) == self.hashes[before], where, f"block {n} does not follow block {before}")
        else:
            open_ = self.headed and not (self.spanned and self.inside)  # a span has no holes
            need(open_ and n > (before or 0), where, f"block {before} is followed by block {n}")
            self.last = {}
        need((n == 1) == (previous == ""), where, "only block 1 has none before it")
        need(sum(r[3] - r[2] + 1 for r in ranges) == events > 0, where, "its numbers are not as many as its events")
        for writer, epoch, first, last in ranges:
            known = self.last.get((writer, epoch), 0 if n == 1 else first - 1)
            need(known + 1 == first <= last, where, f"{writer}/{epoch}: after number {known} comes {first}")
            self.last[writer, epoch] = last
        self.hashes[n] = sha(b"\2", dumps(["smp-bridge block 1", *self.whose, n, previous, root, events, *times, ranges]))
        self.block, self.root, self.headed = fields, bytes.fromhex(root), False
        self.leaves, self.index, self.spoken, self.held, self.spanned = [], -1, set(), set(), self.spanned or self.inside

    def on_event(self, event, line, where):
        leaf, index, data = sha(b"\0", dumps(event)), line.get("index", len(self.leaves)), json.loads(event[7])
        need(event[0] == self.m["participant"], where, "an event of another participant")
        need(event[1:4] == place_in(self.block[7], index), where, "the event's number is not that of its place")
        if "path" in line:
            need(index > self.index and not self.leaves, where, "events in another order")
            need(root_above(leaf, index, self.block[3], line["path"]) == self.root, where, "the event was changed")
            self.index = index
        else:
            self.leaves.append(leaf)
        self.spoken |= {event[8], data.get("envelope"), event[5] == "SENDING" and data.get("readings")} - {None, "", False}

    def on_blob(self, digest, line, where):
        if "blob" in line:
            content = line["text"].encode() if "text" in line else base64.b64decode(line["base64"], validate=True)
            need(sha(bytes.fromhex(line["nonce"]), content).hex() == digest, where, f"the bytes of {digest} were changed")
        need(digest in self.spoken - self.held, where, f"no event of this block speaks of {digest}")
        self.held, self.erased = self.held | {digest}, self.erased + ("erased" in line)

    on_erased = on_blob

    def on_head(self, fields, line, where):
        need(fields[:2] == [self.block[0], self.hashes[self.block[0]].hex()], where, "not the block that was signed")
        check_signature(self.keys, line, dumps(["smp-bridge head 1", *self.whose, *fields]), where)
        self.headed, self.last_head = True, fields


def verify(file, keys, anchor):
    with zipfile.ZipFile(file) as archive:
        need(sorted(archive.namelist()) == NAMES, "zip file", f"its members are not {', '.join(NAMES)}")
        raw, signature = (archive.open(name).read(65536) for name in NAMES[1:])
        check_signature(keys, json.loads(signature), raw, "manifest.json")
        manifest = json.loads(raw)
        need(manifest["form"] == "smp-bridge evidence 1", "manifest.json", "another form")
        chain, digest, left, count = Chain(manifest, keys), hashlib.sha256(), manifest["bytes"], 0
        with archive.open("evidence.jsonl") as member:
            while line := member.readline(min(left, 1 << 28) + 1):
                count, left = count + 1, left - len(line)
                need(left >= 0, f"line {count}", "longer than the manifest says")
                digest.update(line)
                chain.take(json.loads(line), f"line {count}")
    need(left == 0 and chain.headed and chain.last_head == manifest["head"], "the end", "not the signed head of the manifest")
    need(digest.hexdigest() == manifest["sha256"], "evidence.jsonl", "not the bytes that the manifest names")
    if anchor:
        named, last = anchor["blocks"].get(manifest["participant"], {"number": 0}), manifest["head"][0]
        signed = [anchor["form"], anchor["journal"], anchor["written_at"], [[k, b["number"], b["hash"]] for k, b in sorted(anchor["blocks"].items())]]
        "signature" in anchor and check_signature(keys, anchor["signature"], dumps(signed), "anchor")
        need(signed[:2] == ["smp-bridge anchor 1", manifest["journal"]], "anchor", "of another form or journal")
        need(named["number"] <= last or anchor["written_at"] > manifest["exported_at"], "anchor", f"it names block {named['number']}, and the evidence ends with block {last}")
        need(chain.hashes.get(named["number"], b"").hex() in ("", named.get("hash")), "anchor", f"block {named['number']} is another one")
    print(f"whole: {manifest['participant']}, {count} lines, {len(chain.hashes)} blocks, newest head {manifest['head']}, {chain.erased} pieces of bytes erased, blocks up to {manifest.get('retired', 0)} retired before")


if __name__ == "__main__":
    public, *kept = [json.load(open(name, encoding="utf-8")) for name in sys.argv[2:4]]
    try:
        verify(sys.argv[1], {key["kid"]: key for key in public["keys"]}, kept[0] if kept else None)
    except Exception as error:
        raise SystemExit(f"WRONG: it cannot be read as evidence: {error!r}") from error
