import * as v from "valibot";
import { JijiError, SERVER_PATHS } from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { DesiredService } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRunScript } from "../../utils/remote.ts";

/**
 * A release as a server keeps it, in a file only root reads: the whole wish with its environment,
 * so that rolling back and restarting need neither the former configuration nor its secrets.
 */
export interface ReleaseRecord {
  readonly format: 1;
  /** Unix ms. */
  readonly atMs: number;
  readonly service: DesiredService;
  readonly environment: Readonly<Record<string, string>>;
}

const RecordShape = v.looseObject({
  format: v.literal(1),
  atMs: v.number(),
  service: v.looseObject({
    project: v.string(),
    service: v.string(),
    version: v.string(),
    hosts: v.array(v.string()),
    spec: v.looseObject({ image: v.string() }),
    fingerprint: v.looseObject({ image: v.string() }),
    routes: v.array(v.looseObject({ name: v.string() })),
  }),
  environment: v.record(v.string(), v.string()),
});

function folderOf(project: string, service: string): string {
  return `${SERVER_PATHS.projects}/${project}/releases/${service}`;
}

/** Name of a release's file: names sort by time; 15 digits last until the year 33658. */
export function releaseFile(atMs: number): string {
  return `${String(atMs).padStart(15, "0")}.json`;
}

/** Folder, file and how many files to keep there: at least the running release and one before. */
export function releaseArguments(service: DesiredService, file: string): [string, string, string] {
  const { project, service: name, retain } = service;
  return [folderOf(project, name), file, String(Math.max(retain, 2))];
}

/** A record as its file holds it: one line. */
export function renderRelease(record: ReleaseRecord): string {
  return JSON.stringify(record);
}

/** Releases that a server keeps of a service, newest first; files that do not parse are left out. */
export async function readReleases(
  host: RemoteHost,
  key: { readonly project: string; readonly service: string },
): Promise<ReleaseRecord[]> {
  const script = 'for file in "$1"/*.json; do [ -f "$file" ] && cat "$file"; done; exit 0';
  const text = await mustRunScript(host, script, {
    args: [folderOf(key.project, key.service)],
    what: "reading releases failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
  });
  return parseReleases(text).sort((a, b) => b.atMs - a.atMs);
}

/** Records, one JSON line each. */
export function parseReleases(text: string): ReleaseRecord[] {
  return text.split("\n").flatMap((line) => {
    if (!line.trim()) return [];
    try {
      const raw: unknown = JSON.parse(line);
      return v.safeParse(RecordShape, raw).success ? [completed(raw as ReleaseRecord)] : [];
    } catch {
      return [];
    }
  });
}

/** A record that an older jiji wrote lacks what was added since. */
function completed(record: ReleaseRecord): ReleaseRecord {
  const { service } = record;
  const { fingerprint } = service;
  const parts = fingerprint.parts ?? { environment: {}, options: {} };
  return {
    ...record,
    service: { ...service, scale: service.scale ?? 1, fingerprint: { ...fingerprint, parts } },
  };
}

/**
 * The release to go back to: the newest of version `to`, or the newest whose version is not the one
 * that runs.
 *
 * @throws {JijiError} listing what is possible.
 */
export function chooseRelease(
  releases: readonly ReleaseRecord[],
  options: {
    readonly service: string;
    readonly running: string | undefined;
    readonly to: string | undefined;
  },
): ReleaseRecord {
  const { service, running, to } = options;
  const found = releases.find((release) =>
    to === undefined ? release.service.version !== running : release.service.version === to
  );
  if (found) return found;
  const versions = [...new Set(releases.map((release) => release.service.version))];
  const wanted = to === undefined ? "earlier release" : `release ${to}`;
  throw new JijiError(`${service} has no ${wanted} to go back to`, {
    hint: versions.length > 0 ? `kept are: ${versions.join(", ")}` : "none is kept yet",
    serving: `${service} ${running ?? "nothing"}; nothing was changed`,
  });
}
