/** Metrics of jiji-daemon. Pure. */
import type { DaemonReport, LivenessReport } from "@jiji/core/cluster";
import { HEALTH_STATUSES, SCHEMA_VERSION } from "@jiji/core/corrosion";
import { type MetricSample as Sample, renderMetric } from "@jiji/core/runtime";

/** A link to another server, as WireGuard has it. */
export interface LinkCounters {
  readonly serverId: string;
  /** Seconds since the last handshake; undefined when there was none. */
  readonly handshakeAgeS: number | undefined;
  readonly rxBytes: number;
  readonly txBytes: number;
}

/** What metrics are made from. */
export interface MetricsSources {
  readonly report: DaemonReport;
  readonly peers: readonly string[];
  readonly liveness: LivenessReport | undefined;
  readonly links: readonly LinkCounters[];
  /** Health of this server's containers. */
  readonly health: readonly string[];
  /** Rows known, by table. */
  readonly rows: Readonly<Record<string, number>>;
}

/** The whole as text. */
export function renderMetrics(sources: MetricsSources): string {
  return [...aboutItself(sources), ...aboutLinks(sources), ...aboutState(sources)].join("\n") +
    "\n";
}

function aboutItself({ report, health }: MetricsSources): string[] {
  const duties = report.duties;
  const byDuty = (value: (duty: DaemonReport["duties"][number]) => number): Sample[] =>
    duties.map((duty) => [{ duty: duty.name }, value(duty)]);
  const { version } = report;
  return [
    ...family("info", "gauge", "Version.", [[{ version, schema: `${SCHEMA_VERSION}` }, 1]]),
    ...one("start_time_seconds", "Unix time of the start.", report.started_at_ms / 1_000),
    ...family("duty_runs_total", "counter", "Runs of a duty.", byDuty((duty) => duty.runs)),
    ...family(
      "duty_failures_total",
      "counter",
      "Runs of a duty that failed.",
      byDuty((duty) => duty.failures),
    ),
    ...family(
      "duty_seconds_total",
      "counter",
      "Time that a duty's runs took together.",
      byDuty((duty) => duty.seconds),
    ),
    ...family(
      "duty_last_seconds",
      "gauge",
      "Time that a duty's last run took.",
      byDuty((duty) => duty.last_ms / 1_000),
    ),
    ...family(
      "containers",
      "gauge",
      "Containers of jiji that run here, by health.",
      HEALTH_STATUSES.map((
        status,
      ) => [{ health: status }, health.filter((one) => one === status).length]),
    ),
    ...one("stands_down", "1 when the operator removed this server.", Number(report.stands_down)),
  ];
}

function aboutLinks({ peers, liveness, links, report }: MetricsSources): string[] {
  const silent = new Set(liveness?.silent);
  const answering = peers.filter((id) => !silent.has(id)).length;
  const byServer = (values: Readonly<Record<string, number>>, scale: number): Sample[] =>
    Object.entries(values).map(([server, value]) => [{ server }, value * scale]);
  return [
    ...family("peers", "gauge", "Other members, by whether they answer probes.", [
      [{ state: "answering" }, answering],
      [{ state: "silent" }, peers.length - answering],
    ]),
    ...family(
      "link_rtt_seconds",
      "gauge",
      "Last round trip of a probe.",
      byServer(liveness?.rtt_ms ?? {}, 1 / 1_000),
    ),
    ...family(
      "link_loss_ratio",
      "gauge",
      "Share of the last probes that got no answer.",
      byServer(liveness?.loss ?? {}, 1),
    ),
    ...family(
      "link_handshake_age_seconds",
      "gauge",
      "Since WireGuard's last handshake.",
      links.flatMap(({ serverId: server, handshakeAgeS }): Sample[] =>
        handshakeAgeS === undefined ? [] : [[{ server }, handshakeAgeS]]
      ),
    ),
    ...family(
      "link_receive_bytes_total",
      "counter",
      "Received from a server.",
      links.map(({ serverId: server, rxBytes }) => [{ server }, rxBytes]),
    ),
    ...family(
      "link_transmit_bytes_total",
      "counter",
      "Sent to a server.",
      links.map(({ serverId: server, txBytes }) => [{ server }, txBytes]),
    ),
    ...family(
      "clock_ahead_seconds",
      "gauge",
      "Clock of a server less this one's, at its last heartbeat.",
      byServer(report.clock_ahead_ms, 1 / 1_000),
    ),
  ];
}

function aboutState({ report, rows }: MetricsSources): string[] {
  const { corrosion } = report;
  return [
    ...family(
      "rows",
      "gauge",
      "Rows known, by table.",
      Object.entries(rows).map(([table, count]) => [{ table }, count]),
    ),
    ...family(
      "malformed_rows",
      "gauge",
      "Rows passed over because they do not parse, by table.",
      Object.entries(report.malformed_rows).map(([table, count]) => [{ table }, count]),
    ),
    ...one("partitioned", "1 when it may be cut off.", Number(report.partition.partitioned)),
    ...one("cluster_schema", "Oldest schema of a member.", report.cluster_schema),
    ...one("corrosion_up", "1 when Corrosion answers.", Number(corrosion.answers)),
    ...family("corrosion_restarts_total", "counter", "Restarts by the daemon.", [
      [{}, corrosion.restarts],
    ]),
    ...family("corrosion_rejoins_total", "counter", "Joins by the daemon.", [
      [{}, corrosion.rejoins],
    ]),
    ...one("corrosion_members", "Others that Corrosion gossips with.", corrosion.members),
    ...one(
      "corrosion_missing_versions",
      "Versions of rows that Corrosion knows it lacks.",
      corrosion.missing_versions,
    ),
    ...one("corrosion_late_servers", "Servers whose rows are late.", corrosion.late.length),
    ...one("state_free_bytes", "Room on the disk of the state.", corrosion.free_bytes),
  ];
}

function one(name: string, help: string, value: number | null): string[] {
  return value === null ? [] : family(name, "gauge", help, [[{}, value]]);
}

function family(
  name: string,
  type: "gauge" | "counter",
  help: string,
  samples: readonly Sample[],
): string[] {
  return renderMetric({ name: `jiji_daemon_${name}`, type, help }, samples);
}
