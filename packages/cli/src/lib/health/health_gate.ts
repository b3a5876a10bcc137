/** What is told of a container that did not get healthy. */
import {
  type CommandResult,
  HealthGateError,
  type JijiError,
  parseProbeReport,
  type ProbeReport,
  redact,
  Secret,
} from "@jiji/core";
import type { DesiredService } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { commandError } from "../../utils/remote.ts";
import { renderProbeReport } from "../output/probe_report_text.ts";
import { diagnose, type Diagnosis } from "./diagnosis.ts";

/** A new container did not get healthy; carries what was found, as data. */
export class UnhealthyContainerError extends HealthGateError {
  /** What the server's probe reported, without secrets. */
  readonly report: ProbeReport;
  /** The probable cause, where one is known. */
  readonly diagnosis: Diagnosis | undefined;

  /** @param message ready to be shown. */
  constructor(
    message: string,
    evidence: { readonly report: ProbeReport; readonly diagnosis: Diagnosis | undefined },
  ) {
    super(message);
    this.report = evidence.report;
    this.diagnosis = evidence.diagnosis;
  }
}

/** Whose container it is, and how the probe ended. */
export interface GateFacts {
  /** Name of the container. */
  readonly name: string;
  readonly timeoutMs: number;
  readonly result: CommandResult;
  readonly service: DesiredService;
  readonly environment: ReadonlyMap<string, string>;
}

/** The error for a health gate that did not open. */
export function gateError(host: RemoteHost, facts: GateFacts): JijiError {
  const { name, service, environment, timeoutMs, result } = facts;
  const secrets = (service.secretNames ?? []).flatMap((secret) => {
    const value = environment.get(secret);
    return value === undefined ? [] : [new Secret(value)];
  });
  let report: ProbeReport;
  try {
    report = withoutSecrets(parseProbeReport(result.stdout), secrets);
  } catch {
    const argv = ["jiji-daemon", "probe", name] as const;
    return commandError(host, argv, { what: `probing ${name} failed`, result });
  }
  const diagnosis = diagnose(report, {
    timeoutMs,
    environmentNames: [...environment.keys()],
    memory: service.spec.memory,
  });
  const head = `${name} on ${host.name} ${howItEnded(report, timeoutMs)}`;
  const message = `${head}\n${renderProbeReport(report, diagnosis)}`;
  return new UnhealthyContainerError(message, { report, diagnosis });
}

function howItEnded({ state }: ProbeReport, timeoutMs: number): string {
  if (state.restarts > 0) return "crashes when it starts";
  if (!state.running) return "ended by itself";
  return `did not get healthy in ${Math.round(timeoutMs / 1000)} s`;
}

/** Before anything is cut or wrapped, which could leave half a secret. */
function withoutSecrets(report: ProbeReport, secrets: readonly Secret[]): ProbeReport {
  const hide = (text: string) => redact(text, secrets);
  const { answer, check, state } = report;
  return {
    ...report,
    logs_tail: hide(report.logs_tail),
    tries: report.tries.map((attempt) => ({ ...attempt, outcome: hide(attempt.outcome) })),
    state: state.error === undefined ? state : { ...state, error: hide(state.error) },
    ...(check?.command === undefined ? {} : { check: { ...check, command: hide(check.command) } }),
    ...(answer === undefined || answer === null ? {} : {
      answer: {
        ...answer,
        body: hide(answer.body),
        headers: Object.fromEntries(
          Object.entries(answer.headers).map(([key, value]) => [key, hide(value)]),
        ),
      },
    }),
  };
}
