import assert from "node:assert/strict";
import type { ObjectEntries } from "valibot";
import { renderStarter } from "../src/commands/init.ts";
import { BuilderSchema, RegistrySchema } from "../src/lib/configuration/builder.ts";
import { ConfigurationSchema } from "../src/lib/configuration/configuration.ts";
import { EnvironmentSchema } from "../src/lib/configuration/environment.ts";
import {
  DeploySchema,
  NetworkDnsSchema,
  NetworkSchema,
  PublicIpSchema,
} from "../src/lib/configuration/network.ts";
import {
  BufferingSchema,
  HealthCheckSchema,
  LogHeadersSchema,
  ProxySchema,
  TargetSchema,
} from "../src/lib/configuration/proxy.ts";
import { SecretsSchema } from "../src/lib/configuration/secret_adapters.ts";
import { ServerSchema } from "../src/lib/configuration/servers.ts";
import {
  BuildSchema,
  LoggingSchema,
  MountSchema,
  ServiceSchema,
} from "../src/lib/configuration/service_schema.ts";
import { SSHSchema } from "../src/lib/configuration/ssh.ts";
import { ConfigDocument } from "../src/lib/configuration/format/document.ts";
import { configurationOf, problemsOf } from "./configuration_fixture.ts";

const text = await Deno.readTextFile(new URL("../src/jiji.yml", import.meta.url));

const hostValues = {
  SSH_PASSPHRASE: "a",
  SSH_PRIVATE_KEY: "b",
  S1_PASSPHRASE: "c",
  S1_PRIVATE_KEY: "d",
};

Deno.test("jiji.yml: is a valid configuration", () => {
  assert.deepEqual(problemsOf(text, { hostValues }), []);
  assert.equal(configurationOf(text).services.size, 4);
});

/** Where the keys of each schema are shown, as paths with `*` for any name. */
const SHOWN_AT: readonly [path: string, entries: ObjectEntries][] = [
  ["", ConfigurationSchema.entries],
  ["builder", BuilderSchema.entries],
  ["builder.registry", RegistrySchema.entries],
  ["secrets", SecretsSchema.entries],
  ["ssh", SSHSchema.entries],
  ["servers.*", ServerSchema.entries],
  ["network", NetworkSchema.entries],
  ["network.dns", NetworkDnsSchema.entries],
  ["network.public_ip", PublicIpSchema.entries],
  ["deploy", DeploySchema.entries],
  ["environment", EnvironmentSchema.entries],
  ["services.*", ServiceSchema.entries],
  ["services.*.build", BuildSchema.entries],
  ["services.*.files.*", MountSchema.entries],
  ["services.*.environment", EnvironmentSchema.entries],
  ["services.*.logging", LoggingSchema.entries],
  ["services.*.proxy", ProxySchema.entries],
  ["services.*.proxy.targets.*.buffering", BufferingSchema.entries],
  ["services.*.proxy.targets.*.log_headers", LogHeadersSchema.entries],
  ["services.*.proxy.targets.*", TargetSchema.entries],
  ["services.*.proxy.targets.*.healthcheck", HealthCheckSchema.entries],
];

/** Keys of every map that the path leads to. */
function keysAt(value: unknown, path: readonly string[]): string[] {
  if (typeof value !== "object" || value === null) return [];
  const [first, ...rest] = path;
  if (first === undefined) return Array.isArray(value) ? [] : Object.keys(value);
  if (first === "*") return Object.values(value).flatMap((item) => keysAt(item, rest));
  return keysAt((value as Record<string, unknown>)[first], rest);
}

for (const [path, entries] of SHOWN_AT) {
  Deno.test(`jiji.yml: names every key of ${path || "the file"}`, () => {
    const data = ConfigDocument.parse("jiji.yml", text).value;
    // Targets share their keys with `proxy` itself and checks are one kind each, so a key may also
    // be shown at the other place or in a comment.
    const elsewhere = path.includes("proxy") ? /proxy/ : undefined;
    const shown = new Set(keysAt(data, path === "" ? [] : path.split(".")));
    if (elsewhere) {
      for (const other of ["services.*.proxy", "services.*.proxy.targets.*"]) {
        const suffix = path.endsWith("healthcheck") ? ".healthcheck" : "";
        keysAt(data, `${other}${suffix}`.split(".")).forEach((key) => shown.add(key));
      }
      keysAt(data, ["services", "*", "healthcheck"]).forEach((key) => shown.add(key));
    }
    const missing = Object.keys(entries).filter((key) =>
      !shown.has(key) && !new RegExp(`^\\s+# ${key}: \\S`, "m").test(text)
    );
    assert.deepEqual(missing, []);
  });
}

Deno.test("renderStarter(): is a valid configuration with one proxied service", () => {
  assert.deepEqual(problemsOf(renderStarter("my-app")), []);
  const web = configurationOf(renderStarter("my-app")).services.get("web")!;
  assert.deepEqual(web.proxy!.targets[0]!.hosts, []);
});
