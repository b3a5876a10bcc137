import { REFERENCE_NAME } from "../configuration/format/schema_parts.ts";

/** A place of the configuration that names a secret. */
export interface SecretReference {
  readonly name: string;
  /** `servers`, `environment`, `services.web`, …: where to look for it. */
  readonly group: string;
  /** Whether the environment of the command is asked even without `--host-env`. */
  readonly alwaysHost: boolean;
}

/**
 * Every secret that a configuration names, in the order of the file. Reads plain data of any shape:
 * what is malformed is told by validation.
 */
export function secretReferences(configuration: unknown): SecretReference[] {
  const root = mapOf(configuration);
  const found = [
    ...keysOf(mapOf(root["ssh"]), "ssh"),
    ...Object.entries(mapOf(root["servers"])).flatMap(([name, server]) => {
      const group = `servers.${name}`;
      const host = capitals(mapOf(server)["host"]).map((text) => reference(text, group, true));
      return [...host, ...keysOf(mapOf(server), group)];
    }),
    ...capitals(mapOf(mapOf(root["builder"])["registry"])["password"])
      .map((name) => reference(name, "builder.registry")),
    ...named(mapOf(root["environment"])["secrets"]).map((name) => reference(name, "environment")),
    ...Object.entries(mapOf(root["services"])).flatMap(([name, service]) =>
      serviceNames(mapOf(service)).map((secret) => reference(secret, `services.${name}`))
    ),
  ];
  const seen = new Set<string>();
  return found.filter(({ name, group }) => {
    const key = `${group} ${name}`;
    return seen.has(key) ? false : seen.add(key);
  });
}

function reference(name: string, group: string, alwaysHost = false): SecretReference {
  return { name, group, alwaysHost };
}

/** Keys of `ssh` and of servers that hold a login. */
function keysOf(section: Record<string, unknown>, group: string): SecretReference[] {
  return [...capitals(section["key_passphrase"]), ...named(section["key_data"])]
    .map((name) => reference(name, group, true));
}

function serviceNames(service: Record<string, unknown>): string[] {
  const proxy = mapOf(service["proxy"]);
  const targets = [proxy, ...listOf(proxy["targets"]).map(mapOf)];
  return [
    ...named(mapOf(service["environment"])["secrets"]),
    ...named(mapOf(service["build"])["secrets"]),
    ...targets.flatMap((target) => {
      const ssl = mapOf(target["ssl"]);
      return [...named([ssl["certificate_pem"]]), ...named([ssl["private_key_pem"]])];
    }),
  ];
}

function mapOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? value as Record<string, unknown>
    : {};
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function named(value: unknown): string[] {
  return listOf(value).filter((item): item is string => typeof item === "string");
}

function capitals(value: unknown): string[] {
  return typeof value === "string" && REFERENCE_NAME.test(value) ? [value] : [];
}
