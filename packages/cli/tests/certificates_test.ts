import assert from "node:assert/strict";
import { isOk, Secret, systemProcess } from "@jiji/core";
import { ConfigError } from "../src/lib/configuration/config_issue.ts";
import {
  type CertificatePair,
  certificatePath,
  judgeCertificate,
  normalPem,
  readCertificates,
  shippedCertificate,
} from "../src/lib/proxy/certificates.ts";
import { renderCertificateScript } from "../src/lib/services/file_shipping.ts";
import { configText, configurationOf } from "./configuration_fixture.ts";
import { inFolder } from "./local_host.ts";

const DAY_MS = 24 * 60 * 60 * 1000;

/** A self-signed pair for these names, good for 90 days from now. */
async function pairFor(names: readonly string[]): Promise<CertificatePair> {
  const folder = await Deno.makeTempDir();
  try {
    const result = await systemProcess.run([
      ...["openssl", "req", "-x509", "-newkey", "ec"] as const,
      ...["-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90"],
      ...["-keyout", `${folder}/key`, "-out", `${folder}/certificate`, "-subj", "/CN=test"],
      ...["-addext", `subjectAltName=${names.map((name) => `DNS:${name}`).join(",")}`],
    ], { timeoutMs: 20_000 });
    assert.ok(isOk(result), result.stderr);
    return {
      certificate: await Deno.readTextFile(`${folder}/certificate`),
      privateKey: await Deno.readTextFile(`${folder}/key`),
    };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const SHOP = await pairFor(["shop.example.com", "*.shop.example.com"]);
const OTHER = await pairFor(["other.example.com"]);
const nowMs = Date.now();

const facts = (hosts: readonly string[], atMs = nowMs) => ({ hosts, nowMs: atMs });

/** Findings as `severity about: message`. */
function findings(pair: CertificatePair, hosts: readonly string[], atMs = nowMs): string[] {
  return judgeCertificate(pair, facts(hosts, atMs))
    .map(({ severity, about, message }) => `${severity} ${about}: ${message}`);
}

Deno.test("judgeCertificate(): a good pair, also in one line as env files have it", () => {
  const hosts = ["shop.example.com", "www.shop.example.com", "*.shop.example.com"];
  assert.deepEqual(findings(SHOP, hosts), []);
  const oneLine = {
    certificate: SHOP.certificate.replaceAll("\n", "\\n"),
    privateKey: SHOP.privateKey.replaceAll("\n", "\\n"),
  };
  assert.deepEqual(findings(oneLine, hosts), []);
  assert.equal(normalPem(oneLine.certificate), SHOP.certificate);
});

Deno.test("judgeCertificate(): what is no pair is refused, and no value is quoted", () => {
  const swapped = { certificate: SHOP.certificate, privateKey: OTHER.privateKey };
  assert.deepEqual(findings(swapped, ["shop.example.com"]), [
    "error private_key_pem: the key belongs to another certificate",
  ]);
  const cases = [
    { certificate: "secret", privateKey: SHOP.privateKey },
    { certificate: SHOP.certificate, privateKey: "secret" },
    { certificate: SHOP.privateKey, privateKey: SHOP.certificate },
    { certificate: "", privateKey: "" },
  ];
  for (const pair of cases) {
    const found = findings(pair, ["shop.example.com"]).join("\n");
    assert.match(found, /^error .*in PEM form/);
    assert.doesNotMatch(found, /secret$|BEGIN/);
  }
});

Deno.test("judgeCertificate(): its time is told", () => {
  const hosts = ["shop.example.com"];
  assert.match(findings(SHOP, hosts, nowMs + 91 * DAY_MS).join(), /^error .*expired on 20/);
  assert.match(findings(SHOP, hosts, nowMs - DAY_MS).join(), /^error .*not valid before 20/);
  assert.match(findings(SHOP, hosts, nowMs + 80 * DAY_MS).join(), /^warning .*expires on 20/);
});

Deno.test("judgeCertificate(): hosts that it does not name are a warning", () => {
  const found = findings(SHOP, ["a.b.shop.example.com", "shop.example.org", "shop.example.com"]);
  assert.match(
    found.join(),
    /^warning .*does not name a\.b\.shop\.example\.com, shop\.example\.org/,
  );
});

Deno.test("shippedCertificate(): its name tells the content, its text never shows it", () => {
  const one = shippedCertificate("shop-web-80", SHOP);
  const two = shippedCertificate("shop-web-80", OTHER);
  assert.match(one.name, /^shop-web-80-[0-9a-f]{16}\.pem$/);
  assert.notEqual(one.name, two.name);
  assert.equal(shippedCertificate("shop-web-80", SHOP).name, one.name);
  assert.match(certificatePath(one), /\/jiji-certificates\/shop-web-80-/);
  assert.doesNotMatch(JSON.stringify(one) + Deno.inspect(one), /BEGIN/);
});

const SERVICES = `  web:
    image: nginx
    hosts: [s1]
    ports: [80, 81]
    proxy:
      targets:
        - app_port: 80
          host: shop.example.com
          ssl: {certificate_pem: CERT, private_key_pem: KEY}
        - app_port: 81
          host: other.example.com
          ssl: {certificate_pem: CERT, private_key_pem: OTHER_KEY}
`;

Deno.test("readCertificates(): problems stand where the secret is named", () => {
  const fileValues = { CERT: SHOP.certificate, KEY: SHOP.privateKey, OTHER_KEY: OTHER.privateKey };
  const configuration = configurationOf(configText(SERVICES), { fileValues });
  const read = readCertificates(configuration, [...configuration.services.values()], nowMs);
  assert.deepEqual(read.errors.map(({ line, path }) => [line, path]), [
    [21, "services.web.proxy.targets[1].ssl.private_key_pem"],
  ]);
  assert.deepEqual(read.warnings.map(({ line }) => line), [21]);
  assert.deepEqual([...read.certificates.get("web")!.keys()], [80, 81]);
});

Deno.test("readCertificates(): a secret that is not set is named", () => {
  const configuration = configurationOf(configText(SERVICES));
  assert.throws(
    () => readCertificates(configuration, [...configuration.services.values()], nowMs),
    (error) => error instanceof ConfigError && /CERT, KEY are not set/.test(error.message),
  );
});

const ENGINE = `#!/bin/sh
case "$1" in
volume) echo "$(dirname "$0")/volume" ;;
ps) echo abc ;;
inspect) cat "$(dirname "$0")/labels" ;;
*) exit 64 ;;
esac
`;

/** Runs the script with an engine of three commands; gives the folder's files and the output. */
async function runScript(
  folder: string,
  certificates: Parameters<typeof renderCertificateScript>[0],
): Promise<{ files: string[]; stdout: string }> {
  const result = await systemProcess.run(["sh", "-s", "--", `${folder}/engine`], {
    timeoutMs: 20_000,
    stdin: renderCertificateScript(certificates),
  });
  assert.ok(isOk(result), result.stderr);
  const files = [...Deno.readDirSync(`${folder}/volume/jiji-certificates`)]
    .map((entry) => entry.name).sort();
  return { files, stdout: result.stdout };
}

Deno.test("renderCertificateScript(): puts files that only the proxy reads, removes what nothing names", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/volume`);
    await Deno.writeTextFile(`${folder}/engine`, ENGINE, { mode: 0o755 });
    await Deno.writeTextFile(`${folder}/labels`, "");
    const old = shippedCertificate("shop-web-80", OTHER);
    const fresh = shippedCertificate("shop-web-80", SHOP);
    assert.deepEqual((await runScript(folder, [old])).files, [old.name]);
    const info = await Deno.stat(`${folder}/volume/jiji-certificates/${old.name}`);
    assert.equal(info.mode! & 0o777, 0o600);
    await Deno.writeTextFile(`${folder}/volume/kamal-proxy.state`, `[{"x":"/a/${old.name}"}]`);
    assert.deepEqual((await runScript(folder, [fresh])).files, [old.name, fresh.name].sort());
    await Deno.writeTextFile(`${folder}/volume/kamal-proxy.state`, "[]");
    await Deno.writeTextFile(`${folder}/labels`, `[{"flags":["--x=/a/${old.name}"]}]`);
    assert.deepEqual((await runScript(folder, [fresh])).files, [old.name, fresh.name].sort());
    await Deno.writeTextFile(`${folder}/labels`, "");
    assert.deepEqual((await runScript(folder, [fresh])).files, [fresh.name]);
    const text = await Deno.readTextFile(`${folder}/volume/jiji-certificates/${fresh.name}`);
    assert.equal(text, SHOP.certificate + SHOP.privateKey);
  }));

Deno.test("renderCertificateScript(): a release read back has no content; the server must have it", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/volume`);
    await Deno.writeTextFile(`${folder}/engine`, ENGINE, { mode: 0o755 });
    await Deno.writeTextFile(`${folder}/labels`, "");
    const shipped = shippedCertificate("shop-web-80", SHOP);
    const kept = JSON.parse(JSON.stringify(shipped));
    assert.equal(kept.pem instanceof Secret, false);
    assert.equal((await runScript(folder, [kept])).stdout, `@lacking ${shipped.name}\n`);
    await runScript(folder, [shipped]);
    const again = await runScript(folder, [kept]);
    assert.deepEqual(again, { files: [shipped.name], stdout: "" });
  }));
