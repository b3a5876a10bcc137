import { ConfigError, type ConfigIssue } from "../src/lib/configuration/config_issue.ts";
import { Configuration } from "../src/lib/configuration/configuration.ts";
import { ConfigDocument } from "../src/lib/configuration/format/document.ts";
import { SecretSource } from "../src/lib/configuration/secrets.ts";

/** Surroundings of a configuration in a test. */
export interface FixtureOptions {
  readonly fileValues?: Readonly<Record<string, string>>;
  readonly hostValues?: Readonly<Record<string, string>>;
  readonly hostAllowed?: boolean;
  readonly environmentName?: string;
  /** Folder that relative paths start from; default `/project`. */
  readonly projectRoot?: string;
}

/** A configuration made of text, without any file. */
export function configurationOf(text: string, options: FixtureOptions = {}): Configuration {
  return new Configuration({
    document: ConfigDocument.parse(".jiji/deploy.yml", text),
    projectRoot: options.projectRoot ?? "/project",
    environmentName: options.environmentName,
    home: "/home/ana",
    secrets: new SecretSource({
      fileValues: options.fileValues ?? {},
      lookedIn: [".env"],
      hostValues: options.hostValues ?? {},
      hostAllowed: options.hostAllowed ?? false,
    }),
  });
}

/** A valid file; `services` replaces its services, `extra` is put at the end. */
export function configText(services?: string, extra = ""): string {
  return `project: shop
builder:
  engine: docker
servers:
  s1:
    host: 203.0.113.11
  s2:
    host: 203.0.113.12
services:
${
    services ?? `  web:
    image: nginx:1.29
    hosts: [s1]
`
  }${extra}`;
}

/** What is wrong with a file; none when it is valid. */
export function issuesOf(text: string, options: FixtureOptions = {}): readonly ConfigIssue[] {
  try {
    configurationOf(text, options).validate();
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
}

/** Problems as `path: message — fix`. */
export function problemsOf(text: string, options: FixtureOptions = {}): string[] {
  return issuesOf(text, options).map((issue) =>
    `${issue.path}: ${issue.message}${issue.fix === undefined ? "" : ` — ${issue.fix}`}`
  );
}
