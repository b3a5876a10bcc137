import assert from "node:assert/strict";
import fc from "fast-check";
import { ConfigError } from "../src/lib/configuration/config_issue.ts";
import {
  parseMountText,
  parsePortMapping,
  parseShellWords,
  parseVolume,
} from "../src/lib/configuration/format/service_parts.ts";
import { closestWord } from "../src/lib/configuration/format/suggestions.ts";
import { parseEnvFile } from "../src/utils/env_loader.ts";
import { configText, configurationOf } from "./configuration_fixture.ts";

Deno.test("Configuration.validate(): any YAML value in any place is a problem, never a crash", () => {
  const paths = [
    "project",
    "builder",
    "ssh",
    "servers",
    "services",
    "network",
    "deploy",
    "environment",
  ];
  fc.assert(
    fc.property(fc.constantFrom(...paths), fc.jsonValue({ maxDepth: 3 }), (key, value) => {
      const text = configText().replace(new RegExp(`^${key}:[^]*?(?=^\\w|$(?![^]))`, "m"), "");
      validateSafely(`${text}${key}: ${JSON.stringify(value)}\n`);
    }),
    { numRuns: 300 },
  );
});

Deno.test("ServiceConfiguration: any value of any key is a problem, never a crash", () => {
  const keys = [
    "image",
    "build",
    "hosts",
    "ports",
    "volumes",
    "files",
    "directories",
    "environment",
    "command",
    "network_mode",
    "cpus",
    "memory",
    "gpus",
    "devices",
    "labels",
    "proxy",
    "healthcheck",
    "retain",
  ];
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 3 }),
    fc.dictionary(fc.constantFrom("app_port", "targets", "hosts", "path", "local"), fc.jsonValue()),
  );
  fc.assert(
    fc.property(fc.constantFrom(...keys), value, (key, json) => {
      validateSafely(configText(`  web: {${key}: ${JSON.stringify(json)}}\n`));
    }),
    { numRuns: 500 },
  );
});

function validateSafely(text: string): void {
  try {
    const configuration = configurationOf(text);
    configuration.validate();
    for (const service of configuration.services.values()) {
      void [service.volumes, service.command, service.build, service.healthcheck, service.labels];
      void service.proxy?.targets;
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    assert(error.message.length > 0);
  }
}

Deno.test("parsers of small texts: never throw, and what they take they give back", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    const port = parsePortMapping(text);
    assert(port === undefined || port.text === text);
    const volume = parseVolume(text);
    assert(volume === undefined || text.startsWith(volume.source));
    parseMountText(text);
    parseEnvFile(text, ".env");
    closestWord(text, ["hosts", "ports"]);
    for (const word of parseShellWords(text) ?? []) assert.equal(typeof word, "string");
  }));
});

Deno.test("parseShellWords(): gives back words that were quoted for a shell", () => {
  fc.assert(fc.property(fc.array(fc.string()), (words) => {
    const line = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
    assert.deepEqual(parseShellWords(line), words);
  }));
});
