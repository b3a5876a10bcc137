/** Refuses a plan that would hurt, with every reason at once and where it is written. */
import { JijiError } from "@jiji/core";
import type { DesiredService, ObservedHost } from "../../types/deployment.ts";
import type { CommandContext } from "../../utils/command_helpers.ts";
import type { ConfigIssue } from "../configuration/config_issue.ts";
import type { ConfigPath } from "../configuration/format/config_path.ts";
import type { Configuration } from "../configuration/configuration.ts";
import { wrapText } from "../output/probe_report_text.ts";
import { askArchitectures } from "./image_architectures.ts";
import { findRefusals, type PlanFinding, type Subject } from "./plan_refusals.ts";

/** Notices stay whole at 80 columns, with the mark in front. */
const NOTICE_COLUMNS = 78;

/** A plan was not carried out since it would have gone wrong. */
export class PlanRefusedError extends JijiError {
  override readonly code: string = "refused";
  override readonly exitCode: number = 9;
  /** Every reason, ordered by position. */
  readonly issues: readonly ConfigIssue[];

  /** @param message the rendered reasons. */
  constructor(message: string, issues: readonly ConfigIssue[]) {
    super(message, {
      serving: "what served before; nothing was changed",
      hint: "mend what is named above and run the command again",
    });
    this.issues = issues;
  }
}

/**
 * Looks for what would hurt, tells what one should know, and stops at what must not be.
 *
 * @throws {PlanRefusedError} with every reason.
 */
export async function guardPlan(
  context: CommandContext,
  wish: {
    readonly desired: readonly DesiredService[];
    readonly observed: ReadonlyMap<string, ObservedHost>;
  },
): Promise<void> {
  const { configuration, hosts, output, signal } = context;
  const { desired: services, observed } = wish;
  const { engine } = configuration.builder;
  const found = findRefusals({
    project: configuration.project,
    services,
    hosts: observed,
    architectures: new Map(
      [...configuration.servers.values()].map(({ name, arch }) => [name, arch]),
    ),
    images: await askArchitectures(hosts, { services, observed, engine }, signal),
  });
  for (const finding of found.filter(({ severity }) => severity === "notice")) {
    const { file, line, column, path } = issueOf(configuration, finding);
    const text = `${file}:${line}:${column} ${path}: ${finding.message}; ${finding.fix}`;
    output.warn(output.json ? text : wrapText(text, NOTICE_COLUMNS).join("\n  "));
  }
  const refusals = found.filter(({ severity }) => severity === "refusal");
  if (refusals.length === 0) return;
  const issues = refusals.map((finding) => issueOf(configuration, finding));
  const { message, issues: sorted } = configuration.problemError(issues);
  throw new PlanRefusedError(message, sorted);
}

function issueOf(configuration: Configuration, finding: PlanFinding): ConfigIssue {
  return configuration.problem(pathOf(configuration, finding.about), finding.message, {
    fix: finding.fix,
  });
}

/** Where a subject is written; a release of old may be about what no longer is: then its service. */
function pathOf(configuration: Configuration, about: Subject): ConfigPath {
  if ("server" in about) return ["servers", about.server, about.key];
  const base = ["services", about.service];
  const service = configuration.services.get(about.service);
  const { port, route } = about;
  if (port !== undefined) {
    const index = service?.ports.findIndex((one) =>
      one.hostPort === port.hostPort && one.protocol === port.protocol && one.hostIp === port.hostIp
    );
    return index === undefined || index < 0 ? base : [...base, "ports", index];
  }
  if (route === undefined) return base;
  const appPort = Number(route.slice(route.lastIndexOf("-") + 1));
  const index = service?.proxy?.targets.findIndex((target) => target.appPort === appPort) ?? -1;
  return index < 0 ? base : [...base, "proxy", ...service!.proxy!.pathOf(index)];
}
