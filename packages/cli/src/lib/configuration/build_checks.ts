import type { ConfigIssue } from "./config_issue.ts";
import type { ConfigDocument } from "./format/document.ts";
import { REFERENCE_NAME } from "./format/schema_parts.ts";
import type { SecretSource } from "./secrets.ts";
import type { ServiceConfiguration } from "./service.ts";

/** What builds are checked against. */
export interface BuildCheckInput {
  readonly document: ConfigDocument;
  readonly secrets: SecretSource;
  /** Each valid by itself. */
  readonly services: readonly ServiceConfiguration[];
}

/** Build args that name a secret: they would stay readable in the image for everyone who has it. */
export function buildIssues(input: BuildCheckInput): ConfigIssue[] {
  const { document, secrets, services } = input;
  return services.flatMap((service) => {
    const { args = {}, secrets: own = [] } = service.build ?? {};
    return Object.entries(args).flatMap(([name, value]) => {
      if (!REFERENCE_NAME.test(value) || own.includes(value)) return [];
      const known = secrets.find(value) !== undefined ||
        service.environment.secretNames.includes(value);
      if (!known) return [];
      const path = ["services", service.name, "build", "args", name];
      return [document.issue(path, `${value} is a secret, and a build arg stays in the image`, {
        fix:
          `list ${value} under build.secrets and read it with RUN --mount=type=secret,id=${value}`,
      })];
    });
  });
}
