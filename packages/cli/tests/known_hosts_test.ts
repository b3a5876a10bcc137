import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import fc from "fast-check";
import {
  entryMatches,
  fingerprint,
  judgeHostKey,
  keyTypeOf,
  knownHostName,
  parseKnownHosts,
  recordedKeyTypes,
  recordHostKey,
  renderKnownHost,
} from "../src/utils/ssh/known_hosts.ts";

/** A key in wire form: its type, then some bytes. */
function key(type: string, seed: number): Uint8Array {
  const name = new TextEncoder().encode(type);
  return Uint8Array.from([0, 0, 0, name.length, ...name, ...Array(32).fill(seed)]);
}

const base64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes));
const A = key("ssh-ed25519", 1);
const B = key("ssh-ed25519", 2);
const RSA = key("ssh-rsa", 3);

function judge(text: string, blob: Uint8Array, at = { host: "a.com", port: 22 }) {
  return judgeHostKey(parseKnownHosts(text, "kh"), { ...at, blob });
}

Deno.test("parseKnownHosts(): keeps entries with their lines, skips everything else", () => {
  const text = `# comment\n\na.com ssh-ed25519 ${base64(A)} me\n@cert-authority * ssh-rsa AAAA\n` +
    `@revoked b.com ssh-ed25519 ${base64(B)}\nnonsense\na.com ssh-rsa ###\n`;
  assert.deepEqual(
    parseKnownHosts(text, "kh").map((entry) => [entry.line, entry.hosts, entry.revoked]),
    [[3, "a.com", false], [5, "b.com", true]],
  );
});

Deno.test("entryMatches(): names, ports, wildcards, negation and hashes", () => {
  const matches = (hosts: string, name: string) =>
    entryMatches(
      { file: "kh", line: 1, revoked: false, hosts, keyType: "ssh-ed25519", key: "" },
      name,
    );
  assert(matches("x.com,A.com", "a.com"));
  assert(matches("[a.com]:2222", "[a.com]:2222"));
  assert(!matches("[a.com]:2222", "a.com"));
  assert(matches("*.a.com", "b.a.com") && !matches("*.a.com", "a.com"));
  assert(matches("10.0.0.?", "10.0.0.7") && !matches("10.0.0.?", "10.0.0.77"));
  assert(!matches("*.com,!b.com", "b.com") && matches("*.com,!b.com", "a.com"));
  assert(!matches("a.com", "axcom"), "a dot is a dot");
  const salt = Uint8Array.from({ length: 20 }, (_, index) => index);
  const hash = createHmac("sha1", salt).update("[a.com]:22022").digest("base64");
  assert(matches(`|1|${base64(salt)}|${hash}`, "[a.com]:22022"));
  assert(!matches(`|1|${base64(salt)}|${hash}`, "a.com"));
  assert(!matches("|1|***|***", "a.com"));
});

Deno.test("judgeHostKey(): known, unknown, changed and revoked", () => {
  const recorded = `a.com ssh-ed25519 ${base64(A)}\n`;
  assert.equal(judge(recorded, A).kind, "known");
  assert.equal(judge(recorded, B).kind, "changed");
  assert.equal(judge("", A).kind, "unknown");
  assert.equal(judge(recorded, A, { host: "b.com", port: 22 }).kind, "unknown");
  assert.equal(judge(`${recorded}@revoked * ssh-ed25519 ${base64(A)}\n`, A).kind, "revoked");
  const both = `a.com ssh-ed25519 ${base64(B)}\n${recorded}`;
  assert.equal(judge(both, A).kind, "known", "one of several recorded keys is enough");
});

Deno.test("judgeHostKey(): a key of another type counts as changed", () => {
  const verdict = judge(`\na.com ssh-rsa ${base64(RSA)}\n`, A);
  assert.equal(verdict.kind, "changed");
  assert.equal(verdict.kind === "changed" && verdict.entry.line, 2);
});

Deno.test("judgeHostKey(): a key of the name without port is taken, a differing one ignored", () => {
  const at = { host: "a.com", port: 2222 };
  assert.equal(judge(`a.com ssh-ed25519 ${base64(A)}\n`, A, at).kind, "known");
  assert.equal(judge(`a.com ssh-ed25519 ${base64(B)}\n`, A, at).kind, "unknown");
  assert.equal(judge(`[a.com]:2222 ssh-ed25519 ${base64(B)}\n`, A, at).kind, "changed");
});

Deno.test("recordedKeyTypes(): only what is recorded for this host and port", () => {
  const entries = parseKnownHosts(
    `a.com ssh-rsa ${base64(RSA)}\na.com ssh-ed25519 ${
      base64(A)
    }\nb.com ecdsa-sha2-nistp256 AAAA\n` +
      `@revoked a.com ssh-dss AAAA\n`,
    "kh",
  );
  assert.deepEqual(recordedKeyTypes(entries, { host: "A.com", port: 22 }), [
    "ssh-rsa",
    "ssh-ed25519",
  ]);
  assert.deepEqual(recordedKeyTypes(entries, { host: "a.com", port: 23 }), []);
});

Deno.test("recordHostKey(): appends whole lines to a private file, also after a cut-off one", async () => {
  const folder = await Deno.makeTempDir({ prefix: "jiji-known-" });
  try {
    const file = `${folder}/new/known_hosts`;
    recordHostKey(file, { host: "a.com", port: 22, blob: A });
    await Deno.writeTextFile(file, "# no newline", { append: true });
    recordHostKey(file, { host: "fd00::1", port: 2222, blob: B });
    assert.equal(
      await Deno.readTextFile(file),
      `a.com ssh-ed25519 ${base64(A)}\n# no newline\n[fd00::1]:2222 ssh-ed25519 ${base64(B)}\n`,
    );
    assert.equal((await Deno.stat(file)).mode! & 0o777, 0o600);
    assert.equal((await Deno.stat(`${folder}/new`)).mode! & 0o777, 0o700);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("fingerprint(): as ssh-keygen prints it", () => {
  assert.match(fingerprint(A), /^SHA256:[A-Za-z0-9+/]{43}$/);
  assert.equal(fingerprint(A), fingerprint(base64(A)));
  assert.equal(fingerprint(new Uint8Array()), "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU");
});

Deno.test("judgeHostKey(): knows every key that was recorded, whatever the files hold", () => {
  const host = fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?$/);
  const port = fc.integer({ min: 1, max: 65535 });
  fc.assert(
    fc.property(
      host,
      port,
      fc.string(),
      fc.uint8Array({ minLength: 1 }),
      (host, port, noise, tail) => {
        const blob = Uint8Array.from([...key("ssh-ed25519", 7), ...tail]);
        const line = renderKnownHost({ host, port, blob });
        const text = `${noise.replaceAll("@revoked", "")}\n${line}`;
        const verdict = judgeHostKey(parseKnownHosts(text, "kh"), { host, port, blob });
        assert.equal(verdict.kind, "known");
        assert.equal(keyTypeOf(blob), "ssh-ed25519");
        assert(line.startsWith(knownHostName(host, port)));
      },
    ),
  );
});
