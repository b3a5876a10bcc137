import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { Secret } from "@jiji/core/runtime";
import { parseJumps, parseSshConfig, withSshConfig } from "../src/utils/ssh/config.ts";
import { hostKeyAlgorithms } from "../src/utils/ssh/connect.ts";
import { parsePrivateKey, rewriteScalar } from "../src/utils/ssh/key.ts";
import { argvSudo, quoteWord, renderCommandLine } from "../src/utils/ssh/quote.ts";
import type { ServerConnection } from "../src/types/server_connection.ts";

const SERVER: ServerConnection = {
  name: "s1",
  host: "alias",
  ssh: {
    user: "root",
    port: 22,
    keyPaths: [],
    keyData: [],
    keysOnly: false,
    connectTimeoutMs: 1_000,
    sshConfigFiles: [],
    userGiven: false,
    portGiven: false,
  },
};

Deno.test("parsePrivateKey(): reads PEM keys and says why another can't be read", () => {
  const { privateKey } = generateKeyPairSync("ec", {
    namedCurve: "prime256v1",
    privateKeyEncoding: { type: "sec1", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  const good = parsePrivateKey(privateKey, undefined);
  assert(good.ok && good.key.type === "ecdsa-sha2-nistp256");
  const bad = parsePrivateKey("-----BEGIN NONSENSE-----\ns3cret\n", new Secret("x"));
  assert(!bad.ok && !bad.reason.includes("s3cret"));
  assert.match(bad.reason, /not a private key/);
});

Deno.test("rewriteScalar(): pads and cuts a scalar to its curve", () => {
  const pem = (scalar: number[]) => {
    const body = [0x02, 1, 1, 0x04, scalar.length, ...scalar];
    const der = btoa(String.fromCharCode(0x30, body.length, ...body));
    return `-----BEGIN EC PRIVATE KEY-----\n${der}\n-----END EC PRIVATE KEY-----\n`;
  };
  assert.equal(rewriteScalar(pem([0, 1, 2, 3]), 3), pem([1, 2, 3]));
  assert.equal(rewriteScalar(pem([1, 2, 3]), 4), pem([0, 1, 2, 3]));
  assert.equal(rewriteScalar(pem([1, 2, 3]), 3), pem([1, 2, 3]));
  assert.equal(rewriteScalar(pem([1, 2, 3]), 2), undefined);
  assert.equal(rewriteScalar("no key", 32), undefined);
  assert.equal(
    rewriteScalar("-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----", 32),
    undefined,
  );
});

Deno.test("quoteWord(): every word stays one word", () => {
  assert.equal(quoteWord("a-b/c:1"), "a-b/c:1");
  assert.equal(quoteWord(""), "''");
  assert.equal(quoteWord("it's $HOME"), `'it'\\''s $HOME'`);
  assert.equal(quoteWord("~root"), "'~root'");
  assert.equal(
    renderCommandLine(argvSudo(["echo", "a b", "*"])),
    "sudo -n -- echo 'a b' '*'",
  );
});

Deno.test("hostKeyAlgorithms(): offers what is recorded, else everything, never SHA-1", () => {
  assert.deepEqual(hostKeyAlgorithms(["ssh-rsa"]), ["rsa-sha2-512", "rsa-sha2-256"]);
  assert.deepEqual(hostKeyAlgorithms(["ecdsa-sha2-nistp256", "ssh-ed25519"]), [
    "ecdsa-sha2-nistp256",
    "ssh-ed25519",
  ]);
  const all = hostKeyAlgorithms([]);
  assert.equal(all[0], "ssh-ed25519");
  assert(!all.includes("ssh-rsa"));
});

Deno.test("parseSshConfig(): takes what ssh -G prints", () => {
  const output = "host a\nuser ana\nhostname 10.0.0.1\nport 2222\nidentityfile ~/.ssh/k\n" +
    "identityfile /k2\nidentitiesonly yes\nproxyjump none\nproxycommand nc %h %p\n";
  assert.deepEqual(parseSshConfig(output, "/home/ana"), {
    hostName: "10.0.0.1",
    port: 2222,
    user: "ana",
    identityFiles: ["/home/ana/.ssh/k", "/k2"],
    identitiesOnly: true,
    proxyCommand: "nc %h %p",
  });
  assert.deepEqual(parseSshConfig("", "/"), { identityFiles: [], identitiesOnly: false });
});

Deno.test("withSshConfig(): fills in what jiji's configuration leaves open", () => {
  const settings = {
    hostName: "10.0.0.1",
    port: 2222,
    user: "ana",
    identityFiles: ["/k"],
    identitiesOnly: false,
    proxyJump: "b",
  };
  const open = withSshConfig(SERVER, settings);
  assert.deepEqual(
    [open.host, open.ssh.user, open.ssh.port, open.ssh.keyPaths, open.ssh.jump],
    ["10.0.0.1", "ana", 2222, ["/k"], "b"],
  );
  const set = withSshConfig({
    ...SERVER,
    ssh: {
      ...SERVER.ssh,
      userGiven: true,
      portGiven: true,
      keyPaths: ["/own"],
      proxyCommand: "x %h %p",
    },
  }, settings);
  assert.deepEqual(
    [set.ssh.user, set.ssh.port, set.ssh.keyPaths, set.ssh.jump],
    ["root", 22, ["/own"], undefined],
  );
});

Deno.test("parseJumps(): the last hop is reached through those before it", () => {
  const jump = parseJumps(SERVER, "a,ana@b.com:2222")!;
  assert.deepEqual([jump.host, jump.ssh.user, jump.ssh.port, jump.ssh.jump], [
    "b.com",
    "ana",
    2222,
    "a",
  ]);
  assert.equal(parseJumps(SERVER, "a")!.ssh.jump, undefined);
  assert.equal(parseJumps(SERVER, "[fd00::1]:23")!.host, "fd00::1");
  for (const text of ["", "a b", "a:0", "a:99999", "-oProxy=x y"]) {
    assert.equal(parseJumps(SERVER, text), undefined, text);
  }
});
