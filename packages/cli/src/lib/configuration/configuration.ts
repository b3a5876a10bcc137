import { relative } from "node:path";
import * as v from "valibot";
import { PROJECT_NAME } from "@jiji/core/cluster";
import type { Secret } from "@jiji/core/runtime";
import { type SecretReference, secretReferences } from "../secrets/secret_references.ts";
import { BaseConfiguration, type ConfigContext, configError, type Report } from "./base.ts";
import { buildIssues } from "./build_checks.ts";
import { BuilderConfiguration } from "./builder.ts";
import type { ConfigError, ConfigIssue } from "./config_issue.ts";
import { crossIssues } from "./cross_checks.ts";
import { EnvironmentConfiguration } from "./environment.ts";
import type { ConfigPath } from "./format/config_path.ts";
import type { Pointer } from "./format/document.ts";
import { keys, matching, text } from "./format/schema_parts.ts";
import { DeployConfiguration, NetworkConfiguration } from "./network.ts";
import { SecretsConfiguration } from "./secret_adapters.ts";
import { type ServerConfiguration, ServersConfiguration } from "./servers.ts";
import { ServiceConfiguration, type ServiceOwner } from "./service.ts";
import { SSHConfiguration } from "./ssh.ts";

/** Schema of the whole file; sections have schemas of their own. */
export const ConfigurationSchema = keys({
  project: matching(
    PROJECT_NAME,
    "a project name",
    "lower-case letters and digits, joined by - or _, at most 50",
  ),
  builder: v.unknown(),
  ssh: v.optional(v.unknown()),
  servers: v.unknown(),
  services: v.optional(v.unknown()),
  network: v.optional(v.unknown()),
  deploy: v.optional(v.unknown()),
  environment: v.optional(v.unknown()),
  secrets_path: v.optional(text("the path of an env file")),
  secrets: v.optional(v.unknown()),
}, {
  engine: "unknown key, did you mean builder.engine?",
  hosts: "unknown key, did you mean servers?",
});

type ConfigurationValues = v.InferOutput<typeof ConfigurationSchema>;

/**
 * A configuration file. Sections are parsed when they are first used; {@link validate} looks at
 * everything at once.
 */
export class Configuration extends BaseConfiguration<ConfigurationValues> {
  /** @param context made by the loader. */
  constructor(context: ConfigContext) {
    super(context, [], ConfigurationSchema);
  }

  /** Name of the project; first part of every name on the servers. */
  get project(): string {
    return this.values.project;
  }

  /** Folder that holds `.jiji`, absolute. */
  get projectRoot(): string {
    return this.context.projectRoot;
  }

  /** Path of the file, as shown. */
  get file(): string {
    return this.context.document.file;
  }

  /** Name given with `--environment`. */
  get environmentName(): string | undefined {
    return this.context.environmentName;
  }

  /** How images are built, and the engine. */
  get builder(): BuilderConfiguration {
    return this.memo("builder", () => new BuilderConfiguration(this.context));
  }

  /** How to log in. */
  get ssh(): SSHConfiguration {
    return this.memo("ssh", () => new SSHConfiguration(this.context));
  }

  /** Servers by name, in the order of the file. */
  get servers(): ReadonlyMap<string, ServerConfiguration> {
    return this.#servers.all;
  }

  /** The mesh. */
  get network(): NetworkConfiguration {
    return this.memo("network", () => new NetworkConfiguration(this.context));
  }

  /** How a deploy goes over the servers. */
  get deploy(): DeployConfiguration {
    return this.memo("deploy", () => new DeployConfiguration(this.context));
  }

  /** Environment of every service. */
  get environment(): EnvironmentConfiguration {
    return this.memo(
      "environment",
      () => new EnvironmentConfiguration(this.context, ["environment"]),
    );
  }

  /** Services by name, in the order of the file. */
  get services(): ReadonlyMap<string, ServiceConfiguration> {
    return this.memo("services", () => {
      const section = this.context.document.at(["services"]);
      const names = typeof section === "object" && section !== null ? Object.keys(section) : [];
      return new Map(
        names.map((name) => [name, new ServiceConfiguration(this.context, name, this.#owner)]),
      );
    });
  }

  /**
   * Secrets by name, e.g. the certificates of a proxy target.
   *
   * @throws {ConfigError} that names every missing one.
   */
  resolveSecrets(names: Iterable<string>): Map<string, Secret> {
    return this.context.secrets.resolve(names, this.file);
  }

  /** Every secret that the file names, with where it comes from. */
  secretReferences(): readonly (SecretReference & {
    readonly origin: string | undefined;
    readonly secret: Secret | undefined;
  })[] {
    const { document, secrets } = this.context;
    return secretReferences(document.value).map((reference) => ({
      ...reference,
      origin: secrets.origin(reference.name, reference),
      secret: secrets.find(reference.name, reference),
    }));
  }

  /** Where secrets are looked for, and the env file that was read. */
  secretPlaces(): { readonly lookedIn: string; readonly envFile: string | undefined } {
    return { lookedIn: this.context.secrets.lookedIn(), envFile: this.context.envFile };
  }

  /** Every secret that was resolved so far, to be redacted from output. */
  secretsGiven(): readonly Secret[] {
    return this.context.secrets.given();
  }

  /** A problem at a path of the file, found by who knows more than the file. */
  problem(
    path: ConfigPath,
    message: string,
    options: { readonly fix?: string | undefined; readonly pointer?: Pointer } = {},
  ): ConfigIssue {
    return this.context.document.issue(path, message, options);
  }

  /** The error for such problems, ordered by position, with their lines of the file. */
  problemError(issues: readonly ConfigIssue[]): ConfigError {
    return configError(this.context.document, issues);
  }

  /**
   * Looks at the whole file.
   *
   * @throws {ConfigError} with every problem, ordered by position.
   */
  validate(): void {
    const issues = this.allIssues();
    if (issues.length > 0) throw configError(this.context.document, issues);
  }

  /** Every problem of the file, in no order. */
  allIssues(): readonly ConfigIssue[] {
    const services = [...this.services.values()];
    const own = [
      ...this.issues(),
      ...this.ssh.issues(),
      ...this.network.issues(),
      ...this.deploy.issues(),
      ...this.environment.issues(),
    ];
    if (this.context.document.at(["builder"]) !== undefined) {
      own.push(...this.builder.issues(), ...this.builder.registry.issues());
    }
    if (this.context.document.at(["secrets"]) !== undefined) {
      own.push(...new SecretsConfiguration(this.context).issues());
    }
    if (this.context.document.at(["servers"]) !== undefined) own.push(...this.#serverIssues());
    for (const service of services) {
      own.push(
        ...service.issues(),
        ...service.environment.issues(),
        ...(service.proxy?.issues() ?? []),
      );
    }
    if (own.length > 0) return own;
    const { document, secrets } = this.context;
    return [
      ...crossIssues({ project: this.project, document, services }),
      ...buildIssues({ document, secrets, services }),
    ];
  }

  protected override checkAlways(report: Report): void {
    const services = this.context.document.at(["services"]);
    if (services !== undefined && (typeof services !== "object" || Array.isArray(services))) {
      report(["services"], "services is not a map", { fix: "write `NAME:` and its keys below" });
    }
  }

  get #servers(): ServersConfiguration {
    return this.memo("servers", () => new ServersConfiguration(this.context, this.ssh));
  }

  #serverIssues(): ConfigIssue[] {
    const found = [...this.#servers.issues()];
    if (found.length > 0) return found;
    const sshFine = this.ssh.issues().length === 0;
    for (const server of this.servers.values()) {
      const own = server.issues();
      found.push(...own);
      if (own.length === 0 && sshFine) found.push(...this.#loginIssues(server));
    }
    return found;
  }

  /** Keys and passphrases that name a secret which is not set. */
  #loginIssues(server: ServerConfiguration): ConfigIssue[] {
    const missing = server.missingSecrets();
    return missing.map((name) =>
      this.context.document.issue(["servers", server.name], `${name} is not set`, {
        fix: `set it in ${this.context.secrets.lookedIn()} or export it`,
      })
    );
  }

  /** Read one by one, so that a problem of one section hides no other. */
  readonly #owner = (): ServiceOwner => {
    const project = () => this.project;
    const health = () => this.deploy.healthTimeoutMs;
    return {
      get project() {
        return project();
      },
      get healthTimeoutMs() {
        return health();
      },
      serverNames: Object.keys(this.context.document.at(["servers"]) ?? {}),
      environment: this.environment,
    };
  };
}

/** Path of a file as shown: relative to the working directory when that is shorter. */
export function shownPath(path: string, cwd: string): string {
  const short = relative(cwd, path);
  return short.length < path.length && short !== "" ? short : path;
}
