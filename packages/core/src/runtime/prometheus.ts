/**
 * Text that Prometheus reads. Pure. Source of the format: Prometheus, "Exposition formats", text
 * version 0.0.4.
 */

/** A value with its labels. Behind `suffix` is what a histogram adds to its name: `_bucket`. */
export type MetricSample = readonly [
  labels: Readonly<Record<string, string>>,
  value: number,
  suffix?: "_bucket" | "_sum" | "_count",
];

/** What a metric is called and what it counts. */
export interface MetricFamily {
  readonly name: string;
  readonly type: "gauge" | "counter" | "histogram";
  /** One sentence on one line. */
  readonly help: string;
}

/** Lines of a metric: its help, its type, and a line for each sample; none without samples. */
export function renderMetric(family: MetricFamily, samples: readonly MetricSample[]): string[] {
  if (samples.length === 0) return [];
  const { name, type, help } = family;
  return [
    `# HELP ${name} ${help}`,
    `# TYPE ${name} ${type}`,
    ...samples.map(([labels, value, suffix = ""]) =>
      `${name}${suffix}${renderLabels(labels)} ${renderValue(value)}`
    ),
  ];
}

function renderValue(value: number): string {
  return Math.abs(value) === Infinity ? (value > 0 ? "+Inf" : "-Inf") : `${value}`;
}

function renderLabels(labels: Readonly<Record<string, string>>): string {
  const parts = Object.entries(labels).map(([name, value]) => {
    const escaped = value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
    return `${name}="${escaped}"`;
  });
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}
